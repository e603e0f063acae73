"""Checkpoints in files of Kyutai's own layout or the transformers library's, and :func:`open_checkpoint`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch

from tympan.errors import ModelError
from tympan.models.checkpoints import names
from tympan.models.checkpoints.checkpoint import Checkpoint, Layout
from tympan.models.checkpoints.download import Report, no_report
from tympan.models.checkpoints.fields import Fields
from tympan.models.checkpoints.files import Files
from tympan.models.checkpoints.hub import locate
from tympan.models.checkpoints.layout_kyutai import read_kyutai, read_kyutai_mimi
from tympan.models.checkpoints.layout_transformers import read_transformers
from tympan.models.checkpoints.names import WeightRule
from tympan.models.checkpoints.randomized import open_random
from tympan.models.checkpoints.tensors import TensorFiles, check, check_all_used, fill
from tympan.models.config import ModelConfig
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

logger = logging.getLogger(__name__)

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")  # of the transformers layout


def open_checkpoint(model: str) -> Checkpoint:
    """Open a checkpoint; reads (or downloads) its configuration, not its weights.

    Args:
        model: ``org/name[@revision]``, a local folder, or ``random:1b|2.6b|tiny[@seed]``.

    Raises:
        ModelError: There is no such checkpoint, or its configuration is not supported.
        MissingPackageError: The model is on the hub, and huggingface_hub is not installed.
    """
    return open_random(model) if model.startswith("random:") else open_stored(model)


@dataclass(frozen=True)
class StoredCheckpoint(Checkpoint):
    """A checkpoint in files; weights are downloaded when a network is built.

    Attributes:
        files: Access to the files.
        lm_name, mimi_name, tokenizer_name, mimi_config_name: Names of the files; the last one may be empty.
        mentions_heads: Whether config.json gives a number of pause heads.
        preloaded: Weights that have been read into memory, by the name of their file.
    """

    files: Files
    lm_name: str
    mimi_name: str
    tokenizer_name: str
    mimi_config_name: str = ""
    mentions_heads: bool = False
    preloaded: Mapping[str, TensorFiles] = field(default_factory=dict)

    def prepare(self, report: Report = no_report) -> None:
        """Check the headers of all weight files and the disk space, then download what is missing."""
        if self.preloaded:
            return
        self.tokenizer_file()
        parts = {name: self._part_names(name) for name in (self.lm_name, self.mimi_name)}
        starts = {name: TensorFiles(self.files.get_start(part) for part in parts[name]) for name in parts}
        self._check_heads(starts[self.lm_name])
        if not self.mentions_heads and any(name.startswith("extra_heads.") for name in starts[self.lm_name].entries):
            logger.warning(
                "%s: config.json does not mention the pause heads of the weights: turns are taken from energy",
                self.name,
            )
        check(self._lm_rules(), starts[self.lm_name], self._lm_ignored())
        if self.mimi_name == self.lm_name:
            starts[self.mimi_name] = TensorFiles(self.files.get_start(part) for part in parts[self.mimi_name])
        check(self._mimi_rules(), starts[self.mimi_name], self._mimi_ignored())
        missing = list(dict.fromkeys(part for names in parts.values() for part in names))
        self.files.check_space(missing)
        for part in missing:
            self.files.get(part, report)

    def paths(self) -> dict[str, Path]:
        """Return the paths of all files by name, those of weights included; what is missing is downloaded."""
        names = ["config.json", self.tokenizer_name]
        if self.mimi_config_name:
            names.append(self.mimi_config_name)
        if self.layout == "transformers":
            names += PROCESSOR_FILES
        for name in (self.lm_name, self.mimi_name):
            parts = self._part_names(name)
            names += parts if parts == [name] else [f"{name}.index.json", *parts]
        return {name: path for name in dict.fromkeys(names) if (path := self.files.find(name)) is not None}

    def in_memory(self) -> Self:
        """Return the same checkpoint with its weights read into memory."""
        rules = (*self._lm_rules(), *self._mimi_rules())
        used = {name for rule in rules for source in rule.sources for name in source.names}
        files = {name: TensorFiles(self._weight_files(name)) for name in (self.lm_name, self.mimi_name)}
        for tensors in files.values():
            tensors.preload(used)
        return replace(self, preloaded=files)

    def fingerprint(self) -> str | None:
        """Return the paths, sizes and times of the files; a file of the hub's cache is named after its content."""
        files = [file.resolve() for file in self._weight_files(self.lm_name)]
        return repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])

    def tokenizer_file(self) -> Path | None:
        """Return the path of the tokenizer; raises ModelError if there is none."""
        file = self.files.find(self.tokenizer_name)
        if file is None:
            raise ModelError(f"{self.name} has no tokenizer: the file {self.tokenizer_name} is missing")
        return file

    def _load_lm(self, lm: LM, device: torch.device, dtype: torch.dtype) -> None:
        files = self._open(self.lm_name)
        self._check_heads(files)
        fill(lm, self._lm_rules(), files, device=device, dtype=dtype)
        check_all_used(files, self._lm_ignored())

    def _load_mimi(self, mimi: MimiEncoder, device: torch.device) -> None:
        files = self._open(self.mimi_name)
        fill(mimi, self._mimi_rules(), files, device=device, dtype=torch.float32)
        check_all_used(files, self._mimi_ignored())

    def _check_heads(self, files: TensorFiles) -> None:
        """Raise ModelError if the weights and the configuration disagree on the number of pause heads.

        Heads that the configuration does not mention are not used.
        """
        found = sum(name.startswith("extra_heads.") for name in files.entries)
        if self.mentions_heads and found != self.config.lm.pause_heads:
            raise ModelError(
                f"{self.name}: the weights contain {found} pause heads (extra_heads), "
                f"but config.json has extra_heads_num_heads = {self.config.lm.pause_heads}"
            )

    def _lm_ignored(self) -> tuple[str, ...]:
        """Return regular expressions of tensors in the language model's files that it does not use."""
        if self.layout != "kyutai":
            return (r"codec_model\.",)
        return names.LM_UNUSED if self.mentions_heads else (*names.LM_UNUSED, r"extra_heads\.\d+\.weight$")

    def _mimi_ignored(self) -> tuple[str, ...]:
        """Return regular expressions of tensors in the codec's files that its encoder does not use."""
        if self.layout == "kyutai":
            return names.MIMI_UNUSED
        return (r"(?!codec_model\.)", *(rf"codec_model\.{part}" for part in names.MIMI_UNUSED))

    def _lm_rules(self) -> Iterator[WeightRule]:
        rules = names.kyutai_lm if self.layout == "kyutai" else names.transformers_lm
        return rules(self.config.lm)

    def _mimi_rules(self) -> Iterator[WeightRule]:
        rules = names.kyutai_mimi if self.layout == "kyutai" else names.transformers_mimi
        return rules(self.config.mimi)

    def _open(self, name: str) -> TensorFiles:
        return self.preloaded.get(name) or TensorFiles(self._weight_files(name))

    def _weight_files(self, name: str) -> list[Path]:
        """Return the paths of the files of :meth:`_part_names`."""
        return [self.files.get(part) for part in self._part_names(name)]

    def _part_names(self, name: str) -> list[str]:
        """Return the name of the weight file ``name``, or of the parts that are listed in ``name.index.json``."""
        if self.files.has(name) or not self.files.has(f"{name}.index.json"):
            return [name]
        index = self.files.get(f"{name}.index.json")
        try:
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ModelError(f"{index}: expected a JSON object with a weight_map") from None
        return sorted(set(parts))


def open_stored(model: str) -> StoredCheckpoint:
    """Open a checkpoint in files; arguments and errors are those of :func:`open_checkpoint`, without ``random:``."""
    files = locate(model)
    fields = Fields.read(files.get("config.json"))
    layout: Layout = "transformers" if fields.has("codec_config") else "kyutai"
    mimi_config, mentions_heads = "", False
    if layout == "transformers":
        config = read_transformers(fields, *_transformers_delay(files))
        file_names = ("model.safetensors", "model.safetensors", "tokenizer.json")
    else:
        file_names = (
            fields.optional_text("moshi_name", "model.safetensors"),
            fields.optional_text("mimi_name", "tokenizer-e351c8d8-checkpoint125.safetensors"),
            fields.optional_text("tokenizer_name", "tokenizer_spm_32k_3.model"),
        )
        mimi_config = fields.optional_text("mimi_config_name")
        mentions_heads = fields.has("extra_heads_num_heads")
        config = read_kyutai(fields)
        if mimi_config:
            config = replace(config, mimi=read_kyutai_mimi(Fields.read(files.get(mimi_config))))
    _check_codec_fits(config)
    return StoredCheckpoint(
        model,
        config,
        files,
        *file_names,
        layout=layout,
        mimi_config_name=mimi_config,
        mentions_heads=mentions_heads,
    )


def _check_codec_fits(config: ModelConfig) -> None:
    bins, codebooks = config.mimi.quantizer.bins, config.mimi.quantizer.codebooks
    if bins != config.lm.audio_card:
        raise ModelError(f"the codec has {bins} codes per codebook, but the language model has {config.lm.audio_card}")
    if codebooks < config.lm.codebooks:
        raise ModelError(f"the codec has {codebooks} codebooks, but the language model needs {config.lm.codebooks}")


def _transformers_delay(files: Files) -> tuple[float, float]:
    """Return the delay and the silence prefix in seconds, from the configuration of the processor."""
    file = files.find("preprocessor_config.json")
    if file is not None:
        values = Fields.read(file)
    else:
        values = Fields.read(files.get("processor_config.json")).nested("feature_extractor")
    return values.number("audio_delay_seconds", 0.5), values.number("audio_silence_prefix_seconds", 0.0)

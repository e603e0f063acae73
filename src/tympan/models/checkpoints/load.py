"""Checkpoints in files of Kyutai's own layout or the transformers library's, and :func:`open_checkpoint`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch

from tympan.errors import ModelError
from tympan.models.checkpoints import names
from tympan.models.checkpoints.checkpoint import Checkpoint, Layout
from tympan.models.checkpoints.fields import Fields
from tympan.models.checkpoints.hub import Files, locate
from tympan.models.checkpoints.layout_kyutai import read_kyutai, read_kyutai_mimi
from tympan.models.checkpoints.layout_transformers import read_transformers
from tympan.models.checkpoints.names import WeightRule
from tympan.models.checkpoints.randomized import open_random
from tympan.models.checkpoints.tensors import TensorFiles, check_all_used, fill
from tympan.models.config import ModelConfig
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder


def open_checkpoint(model: str) -> Checkpoint:
    """Open a checkpoint; reads (or downloads) its configuration, not its weights.

    Args:
        model: ``org/name[@revision]``, a local folder, or ``random:1b|2.6b|tiny[@seed]``.

    Raises:
        ModelError: There is no such checkpoint, or its configuration is not supported.
        MissingPackageError: The model is on the hub, and huggingface_hub is not installed.
    """
    return open_random(model) if model.startswith("random:") else _open_stored(model)


@dataclass(frozen=True)
class StoredCheckpoint(Checkpoint):
    """A checkpoint in files; weights are downloaded when a network is built.

    Attributes:
        files: Access to the files.
        lm_name, mimi_name, tokenizer_name: Names of the files.
        preloaded: Weights that have been read into memory, by the name of their file.
    """

    files: Files
    lm_name: str
    mimi_name: str
    tokenizer_name: str
    preloaded: Mapping[str, TensorFiles] = field(default_factory=dict)

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
        if self.layout == "kyutai":
            self._check_heads(files)
            ignored = names.LM_UNUSED
        else:
            ignored = (r"codec_model\.",)
        fill(lm, self._lm_rules(), files, device=device, dtype=dtype)
        check_all_used(files, ignored)

    def _load_mimi(self, mimi: MimiEncoder, device: torch.device) -> None:
        files = self._open(self.mimi_name)
        ignored: tuple[str, ...] = names.MIMI_UNUSED
        if self.layout != "kyutai":
            ignored = (r"(?!codec_model\.)", *(rf"codec_model\.{part}" for part in ignored))
        fill(mimi, self._mimi_rules(), files, device=device, dtype=torch.float32)
        check_all_used(files, ignored)

    def _check_heads(self, files: TensorFiles) -> None:
        """Raise ModelError if the weights and the configuration disagree on the number of pause heads."""
        found = sum(name.startswith("extra_heads.") for name in files.entries)
        if found != self.config.lm.pause_heads:
            raise ModelError(
                f"{self.name}: the weights contain {found} pause heads (extra_heads), "
                f"but config.json has extra_heads_num_heads = {self.config.lm.pause_heads}"
            )

    def _lm_rules(self) -> Iterator[WeightRule]:
        rules = names.kyutai_lm if self.layout == "kyutai" else names.transformers_lm
        return rules(self.config.lm)

    def _mimi_rules(self) -> Iterator[WeightRule]:
        rules = names.kyutai_mimi if self.layout == "kyutai" else names.transformers_mimi
        return rules(self.config.mimi)

    def _open(self, name: str) -> TensorFiles:
        return self.preloaded.get(name) or TensorFiles(self._weight_files(name))

    def _weight_files(self, name: str) -> list[Path]:
        """Return the file ``name``, or the parts that are listed in ``name.index.json``."""
        file = self.files.find(name)
        if file is not None:
            return [file]
        index = self.files.find(f"{name}.index.json")
        if index is None:
            return [self.files.get(name)]
        try:
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ModelError(f"{index}: expected a JSON object with a weight_map") from None
        return [self.files.get(part) for part in sorted(set(parts))]


def _open_stored(model: str) -> StoredCheckpoint:
    files = locate(model)
    fields = Fields.read(files.get("config.json"))
    layout: Layout = "transformers" if fields.has("codec_config") else "kyutai"
    if layout == "transformers":
        config = read_transformers(fields, *_transformers_delay(files))
        file_names = ("model.safetensors", "model.safetensors", "tokenizer.json")
    else:
        file_names = (
            fields.text("moshi_name", "model.safetensors"),
            fields.text("mimi_name", "tokenizer-e351c8d8-checkpoint125.safetensors"),
            fields.text("tokenizer_name", "tokenizer_spm_32k_3.model"),
        )
        mimi_config = fields.text("mimi_config_name") if fields.has("mimi_config_name") else None
        config = read_kyutai(fields)
        if mimi_config is not None:
            config = replace(config, mimi=read_kyutai_mimi(Fields.read(files.get(mimi_config))))
    _check_codec_fits(config)
    return StoredCheckpoint(model, config, files, *file_names, layout=layout)


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

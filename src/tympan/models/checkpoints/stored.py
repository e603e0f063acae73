"""Checkpoints in files, of Kyutai's own layout or the transformers library's, and the networks built from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tympan.errors import ModelError
from tympan.models.checkpoints import names
from tympan.models.checkpoints.checkpoint import Layout, check_codebooks
from tympan.models.checkpoints.fields import Fields
from tympan.models.checkpoints.hub import Files, locate
from tympan.models.checkpoints.layout_kyutai import read_kyutai, read_kyutai_mimi
from tympan.models.checkpoints.layout_transformers import read_transformers
from tympan.models.checkpoints.names import Row
from tympan.models.checkpoints.tensors import TensorFiles
from tympan.models.checkpoints.weights import fill, refuse_unused
from tympan.models.config import ModelConfig
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in files, of either layout. Weights are fetched when a network is built, not before."""

    name: str
    layout: Layout
    config: ModelConfig
    files: Files
    lm_name: str
    mimi_name: str
    tokenizer_name: str
    read: Mapping[str, TensorFiles] = field(default_factory=dict)
    """Weights that are in memory already, by the name of their file."""

    def in_memory(self) -> StoredCheckpoint:
        rows = (*self._lm_rows(check_codebooks(None, self.config)), *self._mimi_rows())
        wanted = {name for row in rows for source in row.sources for name in source.names}
        files = {name: TensorFiles(self._weights(name)) for name in (self.lm_name, self.mimi_name)}
        for tensors in files.values():
            tensors.read(wanted)
        return replace(self, read=files)

    def tokenizer_file(self) -> Path | None:
        file = self.files.find(self.tokenizer_name)
        if file is None:
            raise ModelError(f"{self.name} has no tokenizer: the file {self.tokenizer_name} is missing")
        return file

    def lm(
        self,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        codebooks: int | None = None,
        temperature: float = 0.0,
    ) -> LM:
        config = self.config.lm
        used = check_codebooks(codebooks, self.config)
        files = self._open(self.lm_name)
        if self.layout == "kyutai":
            self._check_heads(files)
            ignored = names.LM_UNUSED + names.unused_embeddings(used, config.codebooks)
        else:
            ignored = (r"codec_model\.",)
        with torch.device("meta"):
            lm = LM(config, codebooks=used, temperature=temperature)
        fill(lm, self._lm_rows(used), files, device=torch.device(device), dtype=dtype)
        refuse_unused(files, ignored)
        return lm

    def mimi(self, *, device: str | torch.device = "cpu", codebooks: int | None = None) -> MimiEncoder:
        config = self.config.mimi
        used = check_codebooks(codebooks, self.config)
        files = self._open(self.mimi_name)
        ignored: tuple[str, ...] = names.MIMI_UNUSED
        if self.layout != "kyutai":
            ignored = (r"(?!codec_model\.)", *(rf"codec_model\.{part}" for part in ignored))
        with torch.device("meta"):
            mimi = MimiEncoder(config, used)
        fill(mimi, self._mimi_rows(), files, device=torch.device(device), dtype=torch.float32)
        refuse_unused(files, ignored)
        return mimi

    def _check_heads(self, files: TensorFiles) -> None:
        """Heads in the weights that the configuration does not mention deserve a better sentence than "no place"."""
        found = sum(name.startswith("extra_heads.") for name in files.entries)
        if found != self.config.lm.pause_heads:
            raise ModelError(
                f"{self.name}: the weights hold {found} pause heads (extra_heads), "
                f"but config.json says extra_heads_num_heads = {self.config.lm.pause_heads}"
            )

    def _lm_rows(self, codebooks: int) -> Iterator[Row]:
        rows = names.kyutai_lm if self.layout == "kyutai" else names.transformers_lm
        return rows(self.config.lm, codebooks)

    def _mimi_rows(self) -> Iterator[Row]:
        rows = names.kyutai_mimi if self.layout == "kyutai" else names.transformers_mimi
        return rows(self.config.mimi)

    def _open(self, name: str) -> TensorFiles:
        return self.read.get(name) or TensorFiles(self._weights(name))

    def _weights(self, name: str) -> list[Path]:
        """One file, or the parts listed in ``name.index.json``."""
        file = self.files.find(name)
        if file is not None:
            return [file]
        index = self.files.find(f"{name}.index.json")
        if index is None:
            return [self.files.get(name)]
        try:
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ModelError(f"{index} should hold a JSON object with a weight_map") from None
        return [self.files.get(part) for part in sorted(set(parts))]


def open_stored(model: str) -> StoredCheckpoint:
    """Read the configuration of a folder or repository. Raises ModelError that says what is wrong, and where."""
    files = locate(model)
    fields = Fields.read(files.get("config.json"))
    if fields.has("codec_config"):
        delay, prefix = _transformers_delay(files)
        config = read_transformers(fields, delay, prefix)
        _check_codec_fits(config)
        return StoredCheckpoint(
            model, "transformers", config, files, "model.safetensors", "model.safetensors", "tokenizer.json"
        )
    lm_name = fields.text("moshi_name", "model.safetensors")
    mimi_name = fields.text("mimi_name", "tokenizer-e351c8d8-checkpoint125.safetensors")
    tokenizer_name = fields.text("tokenizer_name", "tokenizer_spm_32k_3.model")
    mimi_config_name = fields.text("mimi_config_name") if fields.has("mimi_config_name") else None
    config = read_kyutai(fields)
    if mimi_config_name is not None:
        config = replace(config, mimi=read_kyutai_mimi(Fields.read(files.get(mimi_config_name))))
    _check_codec_fits(config)
    return StoredCheckpoint(model, "kyutai", config, files, lm_name, mimi_name, tokenizer_name)


def _check_codec_fits(config: ModelConfig) -> None:
    bins, codebooks = config.mimi.quantizer.bins, config.mimi.quantizer.codebooks
    if bins != config.lm.audio_card:
        raise ModelError(f"the codec has codes below {bins}, the language model expects {config.lm.audio_card}")
    if codebooks < config.lm.codebooks:
        raise ModelError(f"the codec has {codebooks} codebooks, the language model wants {config.lm.codebooks}")


def _transformers_delay(files: Files) -> tuple[float, float]:
    """Delay and silence prefix in seconds, from the processor's configuration."""
    file = files.find("preprocessor_config.json")
    if file is not None:
        values = Fields.read(file)
    else:
        values = Fields.read(files.get("processor_config.json")).nested("feature_extractor")
    return values.number("audio_delay_seconds", 0.5), values.number("audio_silence_prefix_seconds", 0.0)

"""What a checkpoint offers, and what it is: sizes computed from its configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from tympan.errors import ModelError
from tympan.models.config import ModelConfig, TransformerConfig
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

Layout = Literal["kyutai", "transformers", "random"]


@dataclass(frozen=True)
class Description:
    """What a checkpoint is, for people and for capacity planning. Bytes are for the element types asked for."""

    name: str
    layout: Layout
    parameters: int
    lm_bytes: int
    mimi_bytes: int
    lm_stream_bytes: int
    mimi_stream_bytes: int
    delay_seconds: float
    silence_prefix_seconds: float
    pause_heads: int
    codebooks: int
    context_seconds: float
    text_card: int

    @property
    def stream_bytes(self) -> int:
        """Memory of one stream."""
        return self.lm_stream_bytes + self.mimi_stream_bytes


class Checkpoint(Protocol):
    """What the engine needs to know of a model's weights."""

    @property
    def name(self) -> str: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def config(self) -> ModelConfig: ...

    def in_memory(self) -> Checkpoint:
        """The same, with the weights read into this process's memory now, as they are in the files."""
        ...

    def tokenizer_file(self) -> Path | None:
        """The tokenizer's file; None for a model without one (``random:``)."""
        ...

    def lm(
        self,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        codebooks: int | None = None,
        temperature: float = 0.0,
    ) -> LM:
        """The language model with its weights."""
        ...

    def mimi(self, *, device: str | torch.device = "cpu", codebooks: int | None = None) -> MimiEncoder:
        """The codec's encoder with its weights, always float32."""
        ...


def check_codebooks(codebooks: int | None, config: ModelConfig) -> int:
    """How many codebooks to use: all by default. Raises ModelError when the model has fewer."""
    most = min(config.lm.codebooks, config.mimi.quantizer.codebooks)
    if codebooks is None:
        return most
    if not 1 <= codebooks <= most:
        raise ModelError(f"codebooks should be between 1 and {most}, not {codebooks}")
    return codebooks


def describe(
    checkpoint: Checkpoint, *, dtype: torch.dtype = torch.bfloat16, codebooks: int | None = None
) -> Description:
    """What ``checkpoint`` is, computed from its configuration; no weight is read.

    dtype: of the language model's weights and cache. The codec is always float32.
    """
    config = checkpoint.config
    used = check_codebooks(codebooks, config)
    with torch.device("meta"):
        lm, mimi = LM(config.lm, codebooks=used), MimiEncoder(config.mimi, used)
        contexts = [
            *mimi.seanet.init_contexts(1, device=torch.device("meta")),
            mimi.downsample.init_context(1, device=torch.device("meta")),
        ]
    lm_parameters, mimi_parameters = (sum(p.numel() for p in module.parameters()) for module in (lm, mimi))
    convolutions = sum(context.numel() for context in contexts)
    return Description(
        name=checkpoint.name,
        layout=checkpoint.layout,
        parameters=lm_parameters + mimi_parameters,
        lm_bytes=lm_parameters * dtype.itemsize,
        mimi_bytes=mimi_parameters * 4,
        lm_stream_bytes=_ring_elements(config.lm.transformer) * dtype.itemsize,
        mimi_stream_bytes=(_ring_elements(config.mimi.transformer) + convolutions) * 4,
        delay_seconds=config.delay_seconds,
        silence_prefix_seconds=config.silence_prefix_seconds,
        pause_heads=config.lm.pause_heads,
        codebooks=used,
        context_seconds=config.lm.transformer.context / config.mimi.frame_rate,
        text_card=config.lm.text_card,
    )


def _ring_elements(config: TransformerConfig) -> int:
    return math.prod((2, config.layers, config.dimension, config.context))

"""The interface of a checkpoint, and its sizes computed from its configuration alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import torch

from tympan.models.checkpoints.download import Report, no_report
from tympan.models.config import ModelConfig, TransformerConfig
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

Layout = Literal["kyutai", "transformers", "random"]


@dataclass(frozen=True)
class Checkpoint(ABC):
    """A model whose networks can be built with their weights.

    Attributes:
        name: The name by which it was opened.
        config: Architecture of the networks.
        layout: Layout of its files.
    """

    name: str
    config: ModelConfig
    layout: Layout = field(kw_only=True)

    @abstractmethod
    def prepare(self, report: Report = no_report) -> None:
        """Check the files as far as that is possible without reading weights, then download what is missing.

        Args:
            report: Called with the progress of a download.

        Raises:
            ModelError: A file is missing or does not fit the architecture, or the download failed.
        """

    @abstractmethod
    def in_memory(self) -> Self:
        """Return the same checkpoint with its weights read into memory, in the dtypes of the files."""

    @abstractmethod
    def fingerprint(self) -> str | None:
        """Return a string that identifies the language model's weights, or None if they are not in files."""

    @abstractmethod
    def tokenizer_file(self) -> Path | None:
        """Return the path of the tokenizer, or None if the model has none (``random:``).

        Raises:
            ModelError: The checkpoint should have a tokenizer and has none.
        """

    def lm(
        self,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        temperature: float = 0.0,
    ) -> LM:
        """Build the language model with its weights.

        Args:
            device: Device of the weights.
            dtype: Data type of the weights.
            temperature: Sampling temperature; 0 is greedy.

        Raises:
            ModelError: The weights are missing or do not fit the architecture.
        """
        with torch.device("meta"):
            lm = LM(self.config.lm, temperature=temperature)
        self._load_lm(lm, torch.device(device), dtype)
        return lm

    def mimi(self, *, device: str | torch.device = "cpu") -> MimiEncoder:
        """Build the encoder of the codec with its weights in float32; arguments and errors are those of :meth:`lm`."""
        with torch.device("meta"):
            mimi = MimiEncoder(self.config.mimi, self.config.lm.codebooks)
        self._load_mimi(mimi, torch.device(device))
        return mimi

    @abstractmethod
    def _load_lm(self, lm: LM, device: torch.device, dtype: torch.dtype) -> None:
        """Replace the parameters of ``lm``, which are on the meta device."""

    @abstractmethod
    def _load_mimi(self, mimi: MimiEncoder, device: torch.device) -> None:
        """Replace the parameters of ``mimi``, which are on the meta device."""


@dataclass(frozen=True)
class Description:
    """Sizes of a checkpoint, for display and capacity planning.

    Attributes:
        parameters: Number of parameters of both networks.
        lm_bytes, mimi_bytes: Memory of the weights.
        lm_stream_bytes, mimi_stream_bytes: Memory of the state of one stream.
        delay_seconds: Delay of the text behind the audio.
        silence_prefix_seconds: Silence to feed before the audio.
        codebooks: Number of codebooks in use.
        context_seconds: Time span that the language model attends to.
        text_card: Number of text tokens.
    """

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
        """Memory of the state of one stream."""
        return self.lm_stream_bytes + self.mimi_stream_bytes


def describe(checkpoint: Checkpoint, *, dtype: torch.dtype = torch.bfloat16) -> Description:
    """Compute the sizes of ``checkpoint`` from its configuration, without reading weights.

    Args:
        checkpoint: The checkpoint.
        dtype: Data type of the weights and the cache of the language model. The codec is always float32.
    """
    config = checkpoint.config
    with torch.device("meta"):
        lm, mimi = LM(config.lm), MimiEncoder(config.mimi, config.lm.codebooks)
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
        codebooks=config.lm.codebooks,
        context_seconds=config.lm.transformer.context / config.mimi.frame_rate,
        text_card=config.lm.text_card,
    )


def _ring_elements(config: TransformerConfig) -> int:
    return math.prod((2, config.layers, config.dimension, config.context))

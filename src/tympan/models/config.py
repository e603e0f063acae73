"""Architecture of the two networks: the Mimi encoder and the decoder-only language model.

Numbers are those of Kyutai's speech-to-text checkpoints; a checkpoint's own files override them (``weights``, ``hub``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TransformerConfig:
    """A causal transformer over a ring of ``context`` steps.

    ``hidden`` is the feed-forward width: of both halves for a gated feed-forward, of the one layer otherwise.
    """

    dimension: int
    layers: int
    heads: int
    hidden: int
    context: int
    max_period: float

    @property
    def head_dimension(self) -> int:
        return self.dimension // self.heads


@dataclass(frozen=True)
class SeanetConfig:
    """The convolutional front end. ``strides`` in the encoder's order (checkpoints list them in the decoder's)."""

    dimension: int = 512
    filters: int = 64
    strides: tuple[int, ...] = (4, 5, 6, 8)
    kernel: int = 7
    last_kernel: int = 3
    residual_kernel: int = 3
    compress: int = 2

    @property
    def hop_samples(self) -> int:
        return math.prod(self.strides)


@dataclass(frozen=True)
class QuantizerConfig:
    """Split residual vector quantizer: ``semantic`` codebooks on one projection, the rest on another."""

    codebooks: int = 32
    semantic: int = 1
    bins: int = 2048
    dimension: int = 256


@dataclass(frozen=True)
class MimiConfig:
    """The codec's encoder: samples in, one code per codebook and frame out."""

    sample_rate: int = 24_000
    seanet: SeanetConfig = field(default_factory=SeanetConfig)
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            dimension=512, layers=8, heads=8, hidden=2048, context=250, max_period=10_000.0
        )
    )
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    downsample: int = 2

    @property
    def frame_samples(self) -> int:
        """Samples per frame of codes (1920 for Kyutai's codec)."""
        return self.seanet.hop_samples * self.downsample

    @property
    def frame_rate(self) -> float:
        """Frames per second (12.5 for Kyutai's codec)."""
        return self.sample_rate / self.frame_samples


@dataclass(frozen=True)
class LMConfig:
    """The language model. Ids ``text_card`` and ``audio_card`` are the initial tokens, one past the real ones."""

    transformer: TransformerConfig
    codebooks: int = 32
    audio_card: int = 2048
    text_card: int = 8000
    pause_heads: int = 0
    pause_classes: int = 6
    padding_token: int = 3
    end_padding_token: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Everything a checkpoint says about itself apart from its weights."""

    lm: LMConfig
    mimi: MimiConfig
    delay_seconds: float
    silence_prefix_seconds: float = 0.0

"""Architecture of the two networks: the Mimi encoder and the decoder-only language model.

The defaults are those of Kyutai's speech-to-text checkpoints. The files of a checkpoint override them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TransformerConfig:
    """A causal transformer that attends to the last ``context`` steps.

    Attributes:
        dimension: Width of the residual stream.
        layers: Number of layers.
        heads: Attention heads per layer.
        hidden: Width of the feed-forward; of each half if it is gated.
        context: Steps that a query attends to, its own included.
        max_period: Longest period of the rotary embedding, in steps.
    """

    dimension: int
    layers: int
    heads: int
    hidden: int
    context: int
    max_period: float

    @property
    def head_dimension(self) -> int:
        """Width of one attention head."""
        return self.dimension // self.heads


@dataclass(frozen=True)
class SeanetConfig:
    """The convolutional front end of the codec.

    Attributes:
        dimension: Output channels.
        filters: Channels after the first convolution; each stage doubles them.
        strides: Stride of each stage in the encoder's order. Checkpoints list them in the decoder's order.
        kernel, last_kernel, residual_kernel: Kernel sizes in steps.
        compress: Ratio of a residual unit's channels to its hidden channels.
    """

    dimension: int = 512
    filters: int = 64
    strides: tuple[int, ...] = (4, 5, 6, 8)
    kernel: int = 7
    last_kernel: int = 3
    residual_kernel: int = 3
    compress: int = 2

    @property
    def hop_samples(self) -> int:
        """Samples per output step."""
        return math.prod(self.strides)


@dataclass(frozen=True)
class QuantizerConfig:
    """Split residual vector quantizer: ``semantic`` codebooks share one projection, the others another one."""

    codebooks: int = 32
    semantic: int = 1
    bins: int = 2048
    dimension: int = 256


@dataclass(frozen=True)
class MimiConfig:
    """The encoder of the codec: audio samples to one code per codebook and frame."""

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
    """The language model.

    Attributes:
        codebooks: Audio codes per frame.
        audio_card, text_card: Numbers of codes per codebook and of text tokens. They are also the ids of the initial
            tokens, which follow the others.
        pause_heads, pause_classes: Heads that predict pauses, and classes of each.
        padding_token, end_padding_token: Text tokens that separate words.
    """

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
    """Configuration of a checkpoint: both networks, the delay of the text and the silence to feed first, in seconds."""

    lm: LMConfig
    mimi: MimiConfig
    delay_seconds: float
    silence_prefix_seconds: float = 0.0

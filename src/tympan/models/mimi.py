"""Mimi's encoder, streaming: one frame of samples in, one code per codebook out.

Mimi is described in Défossez et al. 2024, "Moshi" (arXiv:2410.00037), section 3.3. The encoder always computes in
float32, because codes change with less precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tympan.models.config import MimiConfig
from tympan.models.layers.attention import Ring, reset_positions
from tympan.models.layers.conv import StreamingConv, with_replicated_history
from tympan.models.layers.quantizer import SplitQuantizer
from tympan.models.layers.transformer import GeluFeedForward, Transformer
from tympan.models.seanet import SeanetEncoder

_MAX_SEANET_ROWS = 256  # per call: the first convolutions need some megabytes per row while they run


@dataclass
class MimiState:
    """State of the encoder for every slot, float32 unless stated otherwise.

    Attributes:
        position: ``[slots]`` int64, frames encoded so far. At 0 the other contents of the slot are ignored.
        contexts: Past input of each SEANet convolution, ``[slots, kernel - stride, channels]``.
        downsample: Past input of the last convolution, ``[slots, kernel - stride, dimension]``.
        ring: Keys and values of the transformer.
        frequency: ``[D / 2]``, rotary frequencies, the same for all slots.
    """

    position: Tensor
    contexts: list[Tensor]
    downsample: Tensor
    ring: Ring
    frequency: Tensor

    def reset(self, rows: Tensor, begin: Tensor | None = None) -> None:
        """Start new streams in slots ``rows [n]`` int64; ``begin`` is that of :func:`reset_positions`."""
        reset_positions(self.position, rows, begin)


class MimiEncoder(nn.Module):
    """The encoder half of Mimi.

    Args:
        config: The architecture.
        codebooks: Number of codebooks to search; by default all of them.
    """

    def __init__(self, config: MimiConfig, codebooks: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.codebooks = config.quantizer.codebooks if codebooks is None else codebooks
        dimension = config.seanet.dimension
        self.seanet = SeanetEncoder(config.seanet)
        self.transformer = Transformer(config.transformer, lambda size: nn.LayerNorm(size, eps=1e-5), GeluFeedForward)
        self.downsample = StreamingConv(dimension, dimension, 2 * config.downsample, config.downsample, bias=False)
        self.quantizer = SplitQuantizer(dimension, config.quantizer)

    @property
    def frame_samples(self) -> int:
        """Samples per frame."""
        return self.config.frame_samples

    @property
    def device(self) -> torch.device:
        """Device of the weights; the CPU where another library holds them (`models.cpu`)."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def init_state(self, slots: int) -> MimiState:
        """Return the state of ``slots`` new streams, on the device of the weights."""
        device = self.device
        return MimiState(
            position=torch.zeros(slots, dtype=torch.int64, device=device),
            contexts=self.seanet.init_contexts(slots, device=device),
            downsample=self.downsample.init_context(slots, device=device),
            ring=self.transformer.init_ring(slots, device=device, dtype=torch.float32),
            frequency=self.transformer.init_frequency(device),
        )

    @torch.inference_mode()
    def encode(self, frames: Tensor, state: MimiState, rows: Tensor) -> Tensor:
        """Encode the next frame of each stream and advance the state.

        Args:
            frames: ``[B, frame_samples]`` float32, nominally between -1 and 1.
            state: The state; only the slots ``rows`` are read and written.
            rows: ``[B]`` int64, distinct slots.

        Returns:
            Codes ``[B, K]`` int64.
        """
        codes: Tensor = self.quantizer(self.latent(frames, state, rows), self.codebooks)
        return codes

    @torch.inference_mode()
    def latent(self, frames: Tensor, state: MimiState, rows: Tensor) -> Tensor:
        """Return the input of the quantizer, ``[B, dimension]`` float32; otherwise the same as :meth:`encode`."""
        position = state.position.index_select(0, rows)
        fresh = (position == 0)[:, None, None]
        parts = zip(*(torch.split(whole, _MAX_SEANET_ROWS) for whole in (frames, rows, fresh)), strict=True)
        x = torch.cat([self.seanet(some[:, :, None], state.contexts, of, new) for some, of, new in parts])
        steps = self.config.downsample
        first = position * steps
        positions = first[:, None] + torch.arange(steps, device=frames.device)
        x = self.transformer(x, state.ring, state.frequency, rows, positions)
        out: Tensor = self.downsample(with_replicated_history(x, state.downsample, rows, fresh))  # [B, 1, dimension]
        state.position.index_copy_(0, rows, position + 1)
        return out[:, 0]

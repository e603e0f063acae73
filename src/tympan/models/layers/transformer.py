"""The causal transformer of the codec's encoder and of the language model.

The two differ in their norm and their feed-forward only, which are passed to the constructor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models import kernels
from tympan.models.config import TransformerConfig
from tympan.models.layers.attention import Ring, StepPositions, Window, make_window, update_and_attend
from tympan.models.layers.rope import Rotation, frequencies, rotation

NormFactory = Callable[[int], nn.Module]
FeedForwardFactory = Callable[[int, int], nn.Module]


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, dimension: int, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x [..., dimension]``; same shape and dtype."""
        if kernels.usable(x.device):
            from tympan.models.kernels.fused import rms_norm

            return rms_norm(x, self.weight, self.epsilon)
        wide = x.float()
        variance = self.epsilon + wide.square().mean(dim=-1, keepdim=True)
        return (wide * (self.weight.float() * torch.rsqrt(variance))).to(x.dtype)


class GatedFeedForward(nn.Module):
    """SiLU-gated feed-forward; ``linear_in`` stacks the gate on the value."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(dimension, 2 * hidden, bias=False)
        self.linear_out = nn.Linear(hidden, dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the feed-forward to ``x [..., dimension]``; same shape and dtype."""
        gate, value = self.linear_in(x).chunk(2, dim=-1)
        out: Tensor = self.linear_out(functional.silu(gate) * value)
        return out


class GeluFeedForward(nn.Module):
    """Two-layer feed-forward with an exact GELU."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(dimension, hidden, bias=False)
        self.linear_out = nn.Linear(hidden, dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the feed-forward to ``x [..., dimension]``; same shape and dtype."""
        out: Tensor = self.linear_out(functional.gelu(self.linear_in(x)))
        return out


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, both residual."""

    def __init__(self, config: TransformerConfig, norm: NormFactory, feed_forward: FeedForwardFactory) -> None:
        super().__init__()
        dimension = config.dimension
        self.heads = config.heads
        self.norm1 = norm(dimension)
        self.in_proj = nn.Linear(dimension, 3 * dimension, bias=False)
        self.out_proj = nn.Linear(dimension, dimension, bias=False)
        self.norm2 = norm(dimension)
        self.feed_forward = feed_forward(dimension, config.hidden)

    def forward(self, x: Tensor, ring: Ring, index: int, seen: Window | StepPositions, rope: Rotation) -> Tensor:
        """Run ``x [B, T, dimension]``, and write its steps to layer ``index`` of the ring; same shape and dtype."""
        batch, steps, _ = x.shape
        projected = self.in_proj(self.norm1(x)).view(batch, steps, 3, self.heads, -1)
        x = x + self.out_proj(update_and_attend(projected, ring, index, seen, rope))
        out: Tensor = x + self.feed_forward(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A stack of layers over one ring.

    Args:
        config: The architecture.
        norm: Makes the norm of a layer for a width.
        feed_forward: Makes the feed-forward of a layer for a width and a hidden width.
    """

    def __init__(self, config: TransformerConfig, norm: NormFactory, feed_forward: FeedForwardFactory) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(TransformerLayer(config, norm, feed_forward) for _ in range(config.layers))

    def init_ring(self, slots: int, *, device: torch.device, dtype: torch.dtype) -> Ring:
        """Return an empty ring for ``slots`` streams."""
        config = self.config
        sizes = (config.heads, config.context, config.head_dimension)
        return Ring.empty(config.layers, slots, *sizes, device=device, dtype=dtype)

    def init_frequency(self, device: torch.device) -> Tensor:
        """Return the rotary frequencies, ``[D / 2]`` float32 whatever the dtype of the weights is."""
        return frequencies(self.config.head_dimension, self.config.max_period).to(device)

    def forward(self, x: Tensor, ring: Ring, frequency: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Run new steps through all layers.

        Args:
            x: ``[B, T, dimension]``.
            ring: The ring, updated in place.
            frequency: ``[D / 2]`` float32, from :meth:`init_frequency`.
            rows: ``[B]`` int64, the slot of each row.
            positions: ``[B, T]`` int64, consecutive along T.

        Returns:
            The shape and dtype of ``x``.
        """
        in_kernels = kernels.usable(rows.device)
        seen = StepPositions(rows, positions) if in_kernels else make_window(rows, positions, ring)
        rope = rotation(positions, frequency)
        for index, layer in enumerate(self.layers):
            x = layer(x, ring, index, seen, rope)
        return x

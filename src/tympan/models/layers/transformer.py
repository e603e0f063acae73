"""The causal transformer shared by the codec's encoder and the language model.

The two differ in their norm and their feed-forward only, so each builds its layers from the parts below.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models import kernels
from tympan.models.config import TransformerConfig
from tympan.models.layers.attention import Places, Ring, Window, mix, places
from tympan.models.layers.linear import Linear
from tympan.models.layers.rope import Rotation, frequencies, rotation


class RMSNorm(nn.Module):
    """Root-mean-square norm computed in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, dimension: int, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(dimension))

    def forward(self, x: Tensor) -> Tensor:
        if kernels.usable(x.device):
            from tympan.models.kernels.fused import rms_norm

            return rms_norm(x, self.weight, self.epsilon)
        wide = x.float()
        variance = self.epsilon + wide.square().mean(dim=-1, keepdim=True)
        return (wide * (self.weight.float() * torch.rsqrt(variance))).to(x.dtype)


class GatedFeedForward(nn.Module):
    """SiLU-gated feed-forward; ``linear_in`` stacks the gate's half on the value's."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.linear_in = Linear(dimension, 2 * hidden, bias=False)
        self.linear_out = Linear(hidden, dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.linear_in(x).chunk(2, dim=-1)
        out: Tensor = self.linear_out(functional.silu(gate) * value)
        return out


class GeluFeedForward(nn.Module):
    """Plain two-layer feed-forward with an exact GELU."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.linear_in = Linear(dimension, hidden, bias=False, may_copy=True)
        self.linear_out = Linear(hidden, dimension, bias=False, may_copy=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_out(functional.gelu(self.linear_in(x)))
        return out


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, both residual; ``may_copy`` as for :class:`Linear`."""

    def __init__(
        self,
        config: TransformerConfig,
        norm: Callable[[int], nn.Module],
        feed_forward: Callable[[int, int], nn.Module],
        *,
        may_copy: bool = False,
    ) -> None:
        super().__init__()
        dimension = config.dimension
        self.heads = config.heads
        self.norm1 = norm(dimension)
        self.in_proj = Linear(dimension, 3 * dimension, bias=False, may_copy=may_copy)
        self.out_proj = Linear(dimension, dimension, bias=False, may_copy=may_copy)
        self.norm2 = norm(dimension)
        self.feed_forward = feed_forward(dimension, config.hidden)

    def forward(self, x: Tensor, ring: Ring, index: int, seen: Window | Places, turn: Rotation) -> Tensor:
        """``x [B, T, dimension]``; writes the steps into layer ``index`` of the ring."""
        batch, steps, _ = x.shape
        projected = self.in_proj(self.norm1(x)).view(batch, steps, 3, self.heads, -1)
        x = x + self.out_proj(mix(projected, ring, index, seen, turn))
        out: Tensor = x + self.feed_forward(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A stack of layers over one ring."""

    def __init__(
        self,
        config: TransformerConfig,
        norm: Callable[[int], nn.Module],
        feed_forward: Callable[[int, int], nn.Module],
        *,
        may_copy: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            TransformerLayer(config, norm, feed_forward, may_copy=may_copy) for _ in range(config.layers)
        )

    def init_ring(self, slots: int, *, device: torch.device, dtype: torch.dtype) -> Ring:
        """An empty ring for ``slots`` streams."""
        config = self.config
        return Ring.empty(
            config.layers,
            slots,
            config.heads,
            config.context,
            config.head_dimension,
            device=device,
            dtype=dtype,
        )

    def init_frequency(self, device: torch.device) -> Tensor:
        """Rotary frequencies for the state; they are never converted to the weights' dtype."""
        return frequencies(self.config.head_dimension, self.config.max_period).to(device)

    def forward(self, x: Tensor, ring: Ring, frequency: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Run ``x [B, T, dimension]`` at ``positions [B, T]`` of slots ``rows [B]``."""
        seen = places(rows, positions, ring)
        turn = rotation(positions, frequency)
        for index, layer in enumerate(self.layers):
            x = layer(x, ring, index, seen, turn)
        return x

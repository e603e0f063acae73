"""A linear layer with 8-bit weights: one byte per weight, one scale per output channel.

``weight[o, i] = levels[o, i] * scale[o]`` with levels from -127 to 127. Which kernel multiplies depends on what this
PyTorch and this processor offer, best first:

- oneDNN's integer product, the one that PyTorch's own x86 quantization compiles to. It wants integer activations.
  Rounding those to 8 bits would cost as much accuracy as rounding the weights does, and far more where a row has a few
  large entries. So a row goes in as two rows of 8 bits, a coarse one and what it left over: together 16 bits. The
  weights are read once for both, and reading is what takes the time. Sums are integers, hence exact in any order.
- `torch._weight_int8pack_mm`: bf16 activations, weights widened on the fly. A quarter slower for one row, nearly
  three times as slow for eight.
- Widening the layer's whole weight at every call: slow, but it runs on any device.
"""

from __future__ import annotations

import functools
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST = 127  # symmetric: -128 is not used
_FINER = 2 * _LARGEST  # steps of the second row within half a step, either way, of the first
_SMALLEST_STEP = 1e-30  # keeps the division defined for rows of zeros


def quantize_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``weight [out, in]`` to nearest: levels ``[out, in]`` int8, scale ``[out]`` float32."""
    wide = weight.detach().float()
    scale = wide.abs().amax(dim=1).div_(_LARGEST).clamp_min_(_SMALLEST_STEP)
    return (wide / scale[:, None]).round_().to(torch.int8), scale


def split_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round float32 ``x [B, in]`` to 16 bits, row by row.

    Returns pieces ``[2B, in]`` int8, the B coarse rows before the B fine ones, and step ``[B, 1]`` float32, so that
    ``x = step * (coarse + fine / 254)`` within ``step / 508``.
    """
    rows, features = x.shape
    step = x.abs().amax(dim=1, keepdim=True).div_(_LARGEST).clamp_min_(_SMALLEST_STEP)
    exact = x / step
    coarse = torch.round(exact)
    pieces = torch.empty(2, rows, features, dtype=torch.int8, device=x.device)
    pieces[0] = coarse
    pieces[1] = exact.sub_(coarse).mul_(_FINER).round_()
    return pieces.view(2 * rows, features), step


class Int8Kernel(Protocol):
    """Multiplies float32 ``x [B, in]`` by the weight it holds: float32 ``[B, out]``, every row on its own."""

    def __call__(self, x: Tensor) -> Tensor: ...


class OnednnKernel:
    """oneDNN's product of 8-bit integers. The levels lie in the block order that oneDNN chose for this processor."""

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.scale = scale
        self.zero_points = torch.zeros(len(scale), dtype=torch.int64)
        self.packed: Tensor = torch.ops.onednn.qlinear_prepack(levels, None)
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    def multiply(self, pieces: Tensor) -> Tensor:
        """Int8 ``[B, in]`` times the weight, float32 ``[B, out]``."""
        channels = (self.packed, self.scale, self.zero_points, None)
        out: Tensor = self._multiply(pieces, 1.0, 0, *channels, 1.0, 0, torch.float32, "none", [], "")
        return out

    def __call__(self, x: Tensor) -> Tensor:
        pieces, step = split_rows(x)
        coarse, fine = self.multiply(pieces).chunk(2)
        return coarse.add_(fine, alpha=1 / _FINER).mul_(step)


class PackedKernel:
    """PyTorch's product of bf16 activations and int8 levels, which lie row by row as they are."""

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.levels = levels
        self.scale = scale.bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x.bfloat16(), self.levels, self.scale).float()


class PlainKernel:
    """Widens the levels, row by row as they are, to float32 at every call."""

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.levels = levels
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        wide = self.levels.float()
        # One product per row, because a matrix library sums a lone row in another order than a row among others.
        return torch.stack([functional.linear(row, wide) for row in x]) * self.scale


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN's product exists here and sums the largest integers without saturating.

    Processors without VNNI instructions add pairs of products in 16 bits, which overflows for large weights.
    """
    levels = torch.full((64, 256), _LARGEST, dtype=torch.int8)
    levels[::2] = -_LARGEST
    x = torch.full((2, 256), _LARGEST, dtype=torch.int8)
    x[1] = -_LARGEST
    try:
        product = OnednnKernel(levels, torch.ones(64)).multiply(x)
    except (AttributeError, RuntimeError, TypeError):  # absent, not for this processor, or another signature
        return False
    return torch.equal(product.double(), x.double() @ levels.double().T)


@functools.cache
def packed_runs() -> bool:
    """Whether PyTorch's packed product exists here."""
    try:
        PackedKernel(torch.ones(32, 64, dtype=torch.int8), torch.ones(32))(torch.ones(1, 64))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def choose_kernel(levels: Tensor) -> type[OnednnKernel | PackedKernel | PlainKernel]:
    """The fastest kernel that is right for ``levels [out, in]`` on its device."""
    on_cpu = levels.device.type == "cpu"
    if on_cpu and onednn_is_exact():
        return OnednnKernel
    out_features, in_features = levels.shape
    if on_cpu and out_features % 32 == 0 and in_features % 64 == 0 and packed_runs():  # its blocks have no remainders
        return PackedKernel
    return PlainKernel


class Int8Linear(nn.Module):
    """``x [..., in]`` to ``[..., out]`` by an 8-bit weight; float32, bf16 or f16 in, the same out."""

    def __init__(self, kernel: Int8Kernel, in_features: int, out_features: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.in_features = in_features
        self.out_features = out_features

    @staticmethod
    def from_weight(weight: Tensor) -> Int8Linear:
        """Quantize a floating point ``weight [out, in]``; the layer keeps no reference to it."""
        levels, scale = quantize_channels(weight)
        out_features, in_features = levels.shape
        return Int8Linear(choose_kernel(levels)(levels, scale), in_features, out_features)

    @property
    def size_bytes(self) -> int:
        """Memory that levels and scales take."""
        return self.out_features * (self.in_features + 4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.kernel(x.reshape(-1, self.in_features).float().contiguous())
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)

"""A linear layer with 8-bit weights: one byte per weight, one scale per output channel.

``weight[o, i] = levels[o, i] * scale[o]`` with levels from -127 to 127. There are three kernels:

- oneDNN's integer product, to which PyTorch's x86 quantization compiles. It needs 8-bit activations. Rounding them to 8
  bits would cost as much accuracy as rounding the weights, and far more in rows with a few large entries. Each row is
  therefore rounded to 16 bits and passed as two rows, its low and its high bytes. The weights are read once for both,
  and reading them takes most of the time. The sums are integers, which are exact in any order.
- `torch._weight_int8pack_mm`: bf16 activations; the weights are widened during the product.
- Widening the whole weight at every call, which is slow but works on any device.

The choice depends on what this version of PyTorch and this processor support, compute exactly, and compute fastest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models.layers.fastest import Calls, fastest

_LARGEST = 127  # symmetric: -128 is not used
_MIDDLE = 128  # the unsigned byte that represents zero
_BYTES_MIDDLE = 256 * _MIDDLE + _MIDDLE  # the 16-bit number both of whose bytes represent zero
_LARGEST_16_BIT = 65535 - _BYTES_MIDDLE
_TRIAL_SHAPE, _TRIAL_LAYERS, _TRIAL_ROWS = (4096, 2048), 6, 4  # 50 MB: more than most caches hold
_MARGIN = 1.25  # the exact kernel may take this much longer than the fastest
_BLOCK_CHANNELS = 256  # quantized at once, so that intermediate results stay in the processor's cache
_SMALLEST = 1e-30  # avoids a division by zero for rows of zeros


def quantize_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``weight [out, in]`` to nearest: levels ``[out, in]`` int8, scale ``[out]`` float32."""
    levels = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    for block, block_levels, block_scale in zip(*map(_blocks, (weight.detach(), levels, scale)), strict=True):
        block_scale.copy_(block.abs().amax(dim=1)).div_(_LARGEST).clamp_min_(_SMALLEST)
        block_levels.copy_((block / block_scale[:, None]).round_())  # in float32, whatever the dtype of the weight is
    return levels, scale


def _blocks(channels: Tensor) -> Sequence[Tensor]:
    blocks: Sequence[Tensor] = channels.split(_BLOCK_CHANNELS)  # type: ignore[no-untyped-call]
    return blocks


def split_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round the rows of float32 ``x [B, in]`` to 16 bits each, and split them into bytes.

    Returns:
        Pieces ``[2 * B or more, in]`` uint8, first B rows of low bytes, then B rows of high bytes; and largest
        ``[B, 1]`` float32. ``x = largest / 32639 * (256 * (high - 128) + (low - 128))`` within half a step.
    """
    rows, features = x.shape
    largest = x.abs().amax(dim=1, keepdim=True).clamp_min_(_SMALLEST)
    # Adding a half and truncating is rounding. Of the four bytes of a word, lowest first, two are always zero.
    words = (x * (_LARGEST_16_BIT / largest)).add_(_BYTES_MIDDLE + 0.5).to(torch.int32)
    pieces = words.view(torch.uint8).view(rows, features, 4).permute(2, 0, 1)
    # Four rows take oneDNN 10 to 25 % less time than two, whose loop has too little parallelism.
    return (pieces if rows == 1 else pieces[:2]).reshape(-1, features), largest


class Int8Kernel(Protocol):
    """Multiplies float32 ``x [B, in]`` by a weight: float32 ``[B, out]``, each row independently of the others."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        ...


class OnednnKernel:
    """oneDNN's product of 8-bit integers; the levels are stored in an order that depends on the processor.

    Activations are unsigned, because processors with VNNI but without AMX multiply only unsigned by signed bytes, and
    oneDNN uses a reference loop for anything else. This adds 128 times the sum of a channel's levels, which the bias
    subtracts.
    """

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.scale = scale / _LARGEST_16_BIT
        sums = [block.sum(dim=1, dtype=torch.int32) for block in _blocks(levels)]
        self.bias = -_MIDDLE * torch.cat(sums) * self.scale
        self.zero_points = torch.zeros(len(scale), dtype=torch.int64)
        self.packed: Tensor = torch.ops.onednn.qlinear_prepack(levels, None)
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    def multiply(self, pieces: Tensor) -> Tensor:
        """Multiply bytes ``[B, in]``, which represent -128 to 127, by the weight over 32639: float32 ``[B, out]``."""
        channels = (self.packed, self.scale, self.zero_points, self.bias)
        out: Tensor = self._multiply(pieces, 1.0, 0, *channels, 1.0, 0, torch.float32, "none", [], "")
        return out

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        pieces, largest = split_rows(x)
        sums, rows = self.multiply(pieces), len(x)
        return sums[:rows].add_(sums[rows : 2 * rows], alpha=256).mul_(largest)


class PackedKernel:
    """PyTorch's product of bf16 activations and int8 levels, which are stored row by row."""

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.levels = levels
        self.scale = scale.bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        return torch._weight_int8pack_mm(x.bfloat16(), self.levels, self.scale).float()


class PlainKernel:
    """Widens the levels to float32 at every call."""

    def __init__(self, levels: Tensor, scale: Tensor) -> None:
        self.levels = levels
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        wide = self.levels.float()
        # One product per row, because a matrix library sums a single row in another order.
        return torch.stack([functional.linear(row, wide) for row in x]) * self.scale


KernelClass = type[OnednnKernel | PackedKernel | PlainKernel]


@functools.cache
def onednn_is_exact() -> bool:
    """Return whether oneDNN's product works here and sums the largest integers without saturating.

    Processors without VNNI instructions add pairs of products in 16 bits, which overflows for large weights.
    """
    levels = torch.full((64, 256), _LARGEST, dtype=torch.int8)
    levels[::2] = -_LARGEST
    pieces = torch.full((2, 256), 255, dtype=torch.uint8)
    pieces[1] = 0
    try:
        product = OnednnKernel(levels, torch.full((64,), float(_LARGEST_16_BIT))).multiply(pieces)
    except (AttributeError, RuntimeError, TypeError):  # absent, not for this processor, or another signature
        return False
    return torch.equal(product.double(), (pieces.double() - _MIDDLE) @ levels.double().T)


@functools.cache
def packed_available() -> bool:
    """Return whether PyTorch's packed product works here."""
    try:
        PackedKernel(torch.ones(32, 64, dtype=torch.int8), torch.ones(32))(torch.ones(1, 64))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


@functools.cache
def fastest_kernel() -> KernelClass:
    """Return the kernel that is fastest for a few rows, of those that work and are exact on this processor."""
    candidates: dict[str, KernelClass] = {}
    if onednn_is_exact():
        candidates["onednn"] = OnednnKernel
    if packed_available():
        candidates["packed"] = PackedKernel
    candidates["plain"] = PlainKernel
    levels, x = torch.ones(_TRIAL_SHAPE, dtype=torch.int8), torch.ones(_TRIAL_ROWS, _TRIAL_SHAPE[1])
    scale = torch.ones(len(levels))

    def trial(kernel: Callable[[Tensor, Tensor], Int8Kernel]) -> Calls:
        return [functools.partial(kernel(levels.clone(), scale), x) for _ in range(_TRIAL_LAYERS)]

    return candidates[fastest({name: trial(kernel) for name, kernel in candidates.items()}, margin=_MARGIN)]


def choose_kernel(levels: Tensor) -> KernelClass:
    """Return the fastest kernel that works for ``levels [out, in]`` on their device."""
    if levels.device.type != "cpu":
        return PlainKernel
    kernel = fastest_kernel()
    out_features, in_features = levels.shape
    if kernel is PackedKernel and (out_features % 32 or in_features % 64):  # it supports whole blocks only
        return PlainKernel
    return kernel


class Int8Linear(nn.Module):
    """``x [..., in]`` times an 8-bit weight."""

    def __init__(self, kernel: Int8Kernel, in_features: int, out_features: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.in_features = in_features
        self.out_features = out_features

    @staticmethod
    def from_weight(weight: Tensor) -> Int8Linear:
        """Quantize a floating-point ``weight [out, in]``; the layer keeps no reference to it."""
        levels, scale = quantize_channels(weight)
        out_features, in_features = levels.shape
        return Int8Linear(choose_kernel(levels)(levels, scale), in_features, out_features)

    @property
    def size_bytes(self) -> int:
        """Memory of the levels and scales."""
        return self.out_features * (self.in_features + 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` in the dtype of ``x``: float32, bf16 or f16."""
        out = self.kernel(x.reshape(-1, self.in_features).float().contiguous())
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)

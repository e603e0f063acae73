"""A linear layer with 4-bit weights: half a byte per weight, a scale and an offset per 32 weights of an output channel.

``weight[o, i] = (code[o, i] - 8) * scale[o, i // 32] + offset[o, i // 32]`` with codes from 0 to 15, and scale and
offset in bf16: 5 bits per weight in total. The product is `torch.ops.aten._weight_int4pack_mm_for_cpu` with bf16
activations, which is twenty times as fast as with other dtypes. Where it is missing, the codes are widened at every
call, which is slow but works on any device.
"""

from __future__ import annotations

import functools
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUP = 32  # weights per scale: the smallest that the kernel supports; 64 and 128 are no faster and less accurate
_CODES = 16
_MIDDLE = 8
_BLOCK_CHANNELS = 256  # quantized at once, so that intermediate results stay in the processor's cache
_CHANNEL_BLOCK = 64  # output channels per block of the packed weight


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round ``weight [out, in]`` to nearest: codes ``[out, in]`` int32, scale and offset ``[out, in / 32]`` bf16."""
    codes = torch.empty(weight.shape, dtype=torch.int32, device=weight.device)
    scales, offsets = [], []
    for start in range(0, len(weight), _BLOCK_CHANNELS):
        block = weight[start : start + _BLOCK_CHANNELS].detach().float()
        groups = block.view(len(block), -1, GROUP)  # [block, in / 32, 32]
        low, high = groups.aminmax(dim=2)
        # Codes are computed with the rounded scale and offset, whose rounding therefore adds no error.
        scale = ((high - low) / (_CODES - 1)).clamp_min(1e-30).bfloat16()
        offset = (low + _MIDDLE * scale.float()).bfloat16()
        exact = (groups - offset.float()[..., None]).div_(scale.float()[..., None]).add_(_MIDDLE)
        codes[start : start + _BLOCK_CHANNELS] = exact.round_().clamp_(0, _CODES - 1).flatten(1)
        scales.append(scale)
        offsets.append(offset)
    return codes, torch.cat(scales), torch.cat(offsets)


class Int4Kernel(Protocol):
    """Multiplies bf16 ``x [B, in]`` by a weight: bf16 ``[B, out]``, each row independently of the others."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        ...


class PackedInt4Kernel:
    """PyTorch's 4-bit product; two codes per byte, in an order that depends on the processor."""

    def __init__(self, codes: Tensor, scale: Tensor, offset: Tensor) -> None:
        self.packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.scales = torch.stack((scale.T, offset.T), dim=2).contiguous()  # [in / 32, out, 2]
        self._multiply = torch.ops.aten._weight_int4pack_mm_for_cpu.default

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        out: Tensor = self._multiply(x, self.packed, GROUP, self.scales)
        return out


class PlainInt4Kernel:
    """Widens the codes at every call; the low half of a byte is the code of an even column, the high half the next."""

    def __init__(self, codes: Tensor, scale: Tensor, offset: Tensor) -> None:
        self.pairs = (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)  # [out, in / 2]
        self.scale = scale[..., None].float()
        self.offset = offset[..., None].float()

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[B, out]``."""
        codes = torch.stack((self.pairs & 15, self.pairs >> 4), dim=2).flatten(1)
        groups = (codes.float() - _MIDDLE).view(len(codes), -1, GROUP)
        wide = (groups * self.scale + self.offset).flatten(1)
        # One product per row, because a matrix library sums a single row in another order.
        return torch.stack([functional.linear(row, wide) for row in x.float()]).bfloat16()


@functools.cache
def packed_int4_available() -> bool:
    """Return whether PyTorch's 4-bit product works here."""
    scale = torch.ones(_CHANNEL_BLOCK, 1, dtype=torch.bfloat16)
    codes = torch.full((_CHANNEL_BLOCK, GROUP), _MIDDLE + 1, dtype=torch.int32)
    try:
        product = PackedInt4Kernel(codes, scale, 0 * scale)(torch.ones(1, GROUP, dtype=torch.bfloat16))
    except (AttributeError, RuntimeError, TypeError):  # absent, not for this processor, or another signature
        return False
    return bool((product == GROUP).all())


def choose_int4_kernel(codes: Tensor) -> type[PackedInt4Kernel | PlainInt4Kernel]:
    """Return the fastest kernel that works on the device of ``codes``."""
    return PackedInt4Kernel if codes.device.type == "cpu" and packed_int4_available() else PlainInt4Kernel


class Int4Linear(nn.Module):
    """``x [..., in]`` times a 4-bit weight, which is padded with zeros to the block sizes of the kernel."""

    def __init__(self, kernel: Int4Kernel, in_features: int, out_features: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.in_features = in_features
        self.out_features = out_features
        self.padding = -in_features % GROUP

    @staticmethod
    def from_weight(weight: Tensor) -> Int4Linear:
        """Quantize a floating-point ``weight [out, in]``; the layer keeps no reference to it."""
        out_features, in_features = weight.shape
        padded = functional.pad(weight.detach(), (0, -in_features % GROUP, 0, -out_features % _CHANNEL_BLOCK))
        codes, scale, offset = quantize_groups(padded)
        return Int4Linear(choose_int4_kernel(codes)(codes, scale, offset), in_features, out_features)

    @property
    def size_bytes(self) -> int:
        """Memory of the codes, scales and offsets."""
        rows = self.out_features + -self.out_features % _CHANNEL_BLOCK
        columns = self.in_features + self.padding
        return rows * columns // 2 + rows * columns // GROUP * 4

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` in the dtype of ``x``: float32, bf16 or f16."""
        rows = x.reshape(-1, self.in_features).bfloat16().contiguous()
        if self.padding:
            rows = functional.pad(rows, (0, self.padding))
        out = self.kernel(rows)[:, : self.out_features]
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

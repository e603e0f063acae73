"""Rows as 8-bit floats (e4m3) with one scale each: the largest value of a row becomes 448. One kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _quantize_rows(x, out, scale, width, SMALLEST: tl.constexpr, LARGEST: tl.constexpr, BLOCK: tl.constexpr):
    """Program (row). Divisions round as PyTorch's do. No clamp is needed: the largest quotient rounds to LARGEST."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < width
    wide = tl.load(x + row * width + lane, mask=inside, other=0.0).to(tl.float32)
    factor = tl.div_rn(tl.maximum(tl.max(tl.abs(wide), axis=0), SMALLEST), LARGEST)
    tl.store(out + row * width + lane, tl.div_rn(wide, factor).to(out.dtype.element_ty), mask=inside)
    tl.store(scale + row, factor)


def quantize_rows(x: Tensor, *, smallest: float, largest: float) -> tuple[Tensor, Tensor]:
    """Quantize each row of ``x`` on its own.

    Args:
        x: ``[B, width]`` float32, bf16 or f16.
        smallest: The lower bound of a row's largest absolute value, which keeps rows of zeros defined.
        largest: What the largest absolute value of a row becomes.

    Returns:
        The rows ``[B, width]`` as float8_e4m3fn, and the float32 scales ``[B, 1]`` that they are to be multiplied by.
    """
    rows, width = x.shape
    x = x.contiguous()
    out = torch.empty(rows, width, device=x.device, dtype=torch.float8_e4m3fn)
    scale = torch.empty(rows, 1, device=x.device)
    block = triton.next_power_of_2(width)
    _quantize_rows[(rows,)](x, out, scale, width, SMALLEST=smallest, LARGEST=largest, BLOCK=block, num_warps=8)
    return out, scale

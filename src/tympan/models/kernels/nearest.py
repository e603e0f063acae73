"""Residual nearest-neighbour search for a few rows, one kernel per codebook, exact float32.

For few rows the time of a stage is its launches: a product, a minimum, a gather and a difference. Here a stage is one
kernel. It starts by finishing the stage before: every program picks that stage's code from the candidates of its
parts and subtracts the centroid, which costs less than a launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 16  # above, matrix products use the codebooks better
_PARTS = 16
_BLOCK = 32


@triton.jit
def _pick(values, indices, row, PARTS: tl.constexpr):
    """The code whose value is least among the parts' candidates; the lowest among equals."""
    part = row * PARTS + tl.arange(0, PARTS)
    value = tl.load(values + part)
    index = tl.load(indices + part)
    return tl.min(tl.where(value == tl.min(value, axis=0), index, 2147483647), axis=0)


@triton.jit
def _search(
    residuals,
    next_residuals,
    values,
    indices,
    next_values,
    next_indices,
    codes,
    centroids,
    half_norms,
    stage,
    codebooks,
    BINS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK: tl.constexpr,
    FIRST: tl.constexpr,
):
    """Program (row, part of the bins) of one stage."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    width, lane = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    residual = tl.load(residuals + row * WIDTH + width)
    book = centroids + stage * BINS * WIDTH
    if not FIRST:
        code = _pick(values, indices, row, PARTS)
        residual -= tl.load(book - BINS * WIDTH + code * WIDTH + width)
        if part == 0:
            tl.store(codes + row * codebooks + stage - 1, code.to(tl.int64))
    if part == 0:
        tl.store(next_residuals + row * WIDTH + width, residual)
    least = tl.full([BLOCK], float("inf"), tl.float32)
    where = tl.zeros([BLOCK], tl.int32)
    for first in range(0, SHARE, BLOCK):
        bins = part * SHARE + first + lane
        inside = (first + lane < SHARE) & (bins < BINS)
        centroid = tl.load(book + bins[:, None] * WIDTH + width[None, :], mask=inside[:, None], other=0.0)
        half = tl.load(half_norms + stage * BINS + bins, mask=inside, other=float("inf"))
        value = half - tl.sum(centroid * residual[None, :], axis=1)
        nearer = value < least
        where = tl.where(nearer, bins, where)
        least = tl.where(nearer, value, least)
    value = tl.min(least, axis=0)
    tl.store(next_values + row * PARTS + part, value)
    tl.store(next_indices + row * PARTS + part, tl.min(tl.where(least == value, where, 2147483647), axis=0))


@triton.jit
def _finish(values, indices, codes, codebooks, PARTS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    code = _pick(values, indices, row, PARTS)
    tl.store(codes + row * codebooks + codebooks - 1, code.to(tl.int64))


def nearest_codes(x: Tensor, centroids: Tensor, half_norms: Tensor, codebooks: int) -> Tensor:
    """Codes of ``x [B, dimension]`` float32: ``[B, codebooks]`` int64, at least one codebook.

    centroids: ``[at least codebooks, bins, dimension]``. half_norms: ``[.., bins]``, half of each squared length.
    """
    batch, width = x.shape
    bins = centroids.shape[1]
    codes = torch.empty(batch, codebooks, device=x.device, dtype=torch.int64)
    # Two of each: a stage reads what the stage before wrote while other programs of it still read.
    residuals = [x.contiguous(), *torch.empty(2, batch, width, device=x.device).unbind()]
    values = torch.empty(2, batch, _PARTS, device=x.device)
    indices = torch.empty(2, batch, _PARTS, device=x.device, dtype=torch.int32)
    for stage in range(codebooks):
        now, after = stage % 2, (stage + 1) % 2
        _search[(batch, _PARTS)](
            residuals[0] if stage == 0 else residuals[1 + now],
            residuals[1 + after],
            values[now],
            indices[now],
            values[after],
            indices[after],
            codes,
            centroids,
            half_norms,
            stage,
            codebooks,
            BINS=bins,
            WIDTH=width,
            PARTS=_PARTS,
            SHARE=triton.cdiv(bins, _PARTS),
            BLOCK=_BLOCK,
            FIRST=stage == 0,
        )
    last = codebooks % 2
    _finish[(batch,)](values[last], indices[last], codes, codebooks, PARTS=_PARTS, num_warps=1)
    return codes

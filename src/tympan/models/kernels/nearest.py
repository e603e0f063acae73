"""Residual nearest-neighbor search for a few rows: one kernel per codebook, exact float32.

With few rows, the launches of a product, a minimum, a gather and a difference take most of the time of a stage. Here a
stage is one kernel, which searches the bins in parts. It also completes the previous stage: every program selects that
stage's code from the candidates of its parts and subtracts the centroid, which takes less time than another launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 16  # with more, matrix products are faster
_PARTS = 16
_BLOCK = 32


@triton.jit
def _best_code(values, indices, row, PARTS: tl.constexpr):
    """Return the code with the least value of the candidates of all parts; the lowest of equal ones."""
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
    """Program (row, part of the bins): one stage."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    width, lane = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    residual = tl.load(residuals + row * WIDTH + width)
    book = centroids + stage * BINS * WIDTH
    if not FIRST:
        code = _best_code(values, indices, row, PARTS)
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
    code = _best_code(values, indices, row, PARTS)
    tl.store(codes + row * codebooks + codebooks - 1, code.to(tl.int64))


def nearest_codes(x: Tensor, centroids: Tensor, half_norms: Tensor, codebooks: int) -> Tensor:
    """Return the codes of the nearest centroids.

    Args:
        x: ``[B, dimension]`` float32, at most `MOST_ROWS` rows; the dimension is a power of two.
        centroids: ``[K or more, bins, dimension]`` float32.
        half_norms: ``[K or more, bins]`` float32, half of the squared length of each centroid.
        codebooks: K, at least 1.

    Returns:
        ``[B, K]`` int64.
    """
    batch, width = x.shape
    bins = centroids.shape[1]
    codes = torch.empty(batch, codebooks, device=x.device, dtype=torch.int64)
    # Two buffers each, because programs of a stage read those of the previous stage while others write.
    residuals = [x.contiguous(), *torch.empty(2, batch, width, device=x.device).unbind()]
    values = torch.empty(2, batch, _PARTS, device=x.device)
    indices = torch.empty(2, batch, _PARTS, device=x.device, dtype=torch.int32)
    constants = {"BINS": bins, "WIDTH": width, "PARTS": _PARTS, "SHARE": triton.cdiv(bins, _PARTS), "BLOCK": _BLOCK}
    for stage in range(codebooks):
        now, after = stage % 2, (stage + 1) % 2
        read = residuals[0] if stage == 0 else residuals[1 + now]
        candidates = (values[now], indices[now], values[after], indices[after])
        _search[(batch, _PARTS)](
            read,
            residuals[1 + after],
            *candidates,
            codes,
            centroids,
            half_norms,
            stage,
            codebooks,
            **constants,
            FIRST=stage == 0,
        )
    last = codebooks % 2
    _finish[(batch,)](values[last], indices[last], codes, codebooks, PARTS=_PARTS, num_warps=1)
    return codes

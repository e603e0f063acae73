"""Attention of one or two queries per row over the ring, which is read once and in place.

A step reads every cached key and value of its rows once and computes little with them, so it should be bound by memory
bandwidth. That takes few instructions per entry and many bytes in flight: tiles are two-dimensional, copies are 16
bytes wide and run ahead of the computation, and threads exchange only partial dot products. One program handles one row
and head. If there are too few rows and heads to fill the GPU, the context is split between programs, and a second
kernel joins the parts.

The ring may hold 8-bit floats (e4m3) with one scale per layer and head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# A finite minimum instead of -inf, so that no difference of scores is NaN.
_LOWEST = tl.constexpr(-1e30)
_MAX_SPLITS = 16
_PROGRAMS_PER_MULTIPROCESSOR = 4
_INTERPRETER_MULTIPROCESSORS = 8


class ReadConfig(NamedTuple):
    """Launch configuration: ring entries per iteration, warps, and pipeline stages (tiles in flight or in use)."""

    block: int
    warps: int
    stages: int


CONFIGS = (ReadConfig(32, 4, 3), ReadConfig(16, 4, 3), ReadConfig(32, 4, 2), ReadConfig(16, 2, 3))
"""Configurations that calibration selects from; the first is the default."""

_selected: dict[tuple[int, int, torch.dtype], ReadConfig] = {}


def selected_config(steps: int, width: int, dtype: torch.dtype) -> ReadConfig:
    """Return the configuration for a number of queries per row, a head dimension and a dtype of the ring."""
    return _selected.get((steps, width, dtype), CONFIGS[0])


def select_config(steps: int, width: int, dtype: torch.dtype, config: ReadConfig) -> None:
    """Use ``config`` in future launches, and in graphs that are recorded later."""
    _selected[steps, width, dtype] = config


@triton.jit
def _accumulate(q, k, v, hidden, best, total, mixed):
    """Add one tile of the ring, ``k`` and ``v [BLOCK, WIDTH]``, to the running softmax of one query.

    Each of the BLOCK lanes has a separate softmax (largest score, sum of weights, weighted sum of values), so that
    threads exchange only partial dot products until the loop has ended.
    """
    score = tl.where(hidden, _LOWEST, tl.sum(k.to(tl.float32) * q[None, :], axis=1))
    new_best = tl.maximum(best, score)
    decay, weight = tl.exp2(best - new_best), tl.exp2(score - new_best)
    return new_best, total * decay + weight, mixed * decay[:, None] + weight[:, None] * v.to(tl.float32)


@triton.jit
def _filled(positions, row, capacity, STEPS: tl.constexpr):
    """Return the newest entry of the row's ring and the number of filled entries.

    Keys are rotated before they are cached, so the order of the entries does not matter.
    """
    last = tl.load(positions + row * STEPS + STEPS - 1)
    return (last % capacity).to(tl.int32), tl.minimum(last + 1, capacity).to(tl.int32)


@triton.jit
def _store_result(
    best, total, mixed, value_scale, place, part, out, parts, sums, WIDTH: tl.constexpr, SPLITS: tl.constexpr
):
    """Join the lanes' softmaxes, and store the output of a query or, if the context is split, of one part."""
    width = tl.arange(0, WIDTH)
    top = tl.max(best, axis=0)
    # A lane without entries has the lowest score, and therefore a factor of 0 if another lane has entries.
    factor = tl.exp2(best - top)
    total, mixed = tl.sum(total * factor, axis=0), tl.sum(mixed * factor[:, None], axis=0) * value_scale
    if SPLITS == 1:
        tl.store(out + place * WIDTH + width, (mixed / total).to(out.dtype.element_ty))
    else:
        tl.store(parts + part * WIDTH + width, mixed)
        tl.store(sums + part * 2, top)
        tl.store(sums + part * 2 + 1, total)


@triton.jit
def _read_window(
    query,
    keys,
    values,
    key_scales,
    value_scales,
    rows,
    positions,
    out,
    parts,
    sums,
    capacity,
    scale,
    STEPS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
):
    """Program (row, head, part of the context): attention of the one or two queries of a row."""
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    newest, length = _filled(positions, row, capacity, STEPS)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    begin, end = split * share, tl.minimum((split + 1) * share, length)
    lane, width, value_scale = tl.arange(0, BLOCK), tl.arange(0, WIDTH), 1.0
    if SCALED:
        scale *= tl.load(key_scales + head)
        value_scale = tl.load(value_scales + head)
    place = row * STEPS * HEADS + head
    first_query = tl.load(query + place * WIDTH + width).to(tl.float32) * scale
    best = tl.full([BLOCK], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, WIDTH], tl.float32)
    if STEPS == 2:
        second_query = tl.load(query + (place + HEADS) * WIDTH + width).to(tl.float32) * scale
        second_best, second_total, second_mixed = best, total, mixed
    # The 64-bit offset of the row is added once; within the ring of a row, 32 bits suffice.
    start = (tl.load(rows + row) * HEADS + head) * capacity * WIDTH
    keys, values = keys + start, values + start
    # STAGES - 1 tiles are being loaded while one is in use, which keeps enough bytes in flight.
    for first in tl.range(begin, end, BLOCK, num_stages=STAGES):
        # Past the end, the last entry is read again: loads need no mask, and unwritten memory is never read.
        at = tl.minimum(first + lane, length - 1)[:, None] * WIDTH + width[None, :]
        k, v = tl.load(keys + at), tl.load(values + at)
        hidden = first + lane >= end
        if STEPS == 2:
            second_best, second_total, second_mixed = _accumulate(
                second_query, k, v, hidden, second_best, second_total, second_mixed
            )
            # Both steps are in the ring already: the first query must not attend to the second step's entry.
            hidden |= first + lane == newest
        best, total, mixed = _accumulate(first_query, k, v, hidden, best, total, mixed)
    part = (place * SPLITS + split).to(tl.int64)
    _store_result(best, total, mixed, value_scale, place, part, out, parts, sums, WIDTH, SPLITS)
    if STEPS == 2:
        best, total, mixed, place = second_best, second_total, second_mixed, place + HEADS
        part += HEADS * SPLITS
        _store_result(best, total, mixed, value_scale, place, part, out, parts, sums, WIDTH, SPLITS)


@triton.jit
def _join_parts(parts, sums, out, STEPS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    """Program (row and step, head): average the outputs of the parts, weighted by their shares of the softmax sum."""
    place, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, width = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    part = (place * HEADS + head) * SPLITS + split
    top = tl.load(sums + part * 2)
    factor = tl.exp2(top - tl.max(top, axis=0))
    total = tl.sum(tl.load(sums + part * 2 + 1) * factor, axis=0)
    mixed = tl.load(parts + part[:, None] * WIDTH + width[None, :])
    mixed = tl.sum(mixed * factor[:, None], axis=0) / total
    tl.store(out + (place * HEADS + head) * WIDTH + width, mixed.to(out.dtype.element_ty))


def read_window(
    query: Tensor,
    rows: Tensor,
    positions: Tensor,
    keys: Tensor,
    values: Tensor,
    scales: Tensor | None,
    *,
    config: ReadConfig | None = None,
    splits: int | None = None,
) -> Tensor:
    """Return scaled dot-product attention over one layer of the ring.

    Args:
        query: ``[B, T, H, D]``, one or two rotated queries per row; D is a power of two.
        rows: ``[B]`` int64, the slot of each row.
        positions: ``[B, T]`` int64, consecutive along T.
        keys: ``[slots, H, C, D]``, including the queries' own steps.
        values: ``[slots, H, C, D]``, including the queries' own steps.
        scales: ``[2, H]`` float32 for a ring of 8-bit floats, else None.
        config: Launch configuration; by default the one that :func:`select_config` set for this kind of ring.
        splits: Programs that share the context of a row, a power of two; by default enough to fill the GPU.

    Returns:
        The shape and dtype of ``query``.
    """
    batch, steps, heads, width = query.shape
    assert steps in (1, 2), "the kernel handles one or two queries per row"
    config = selected_config(steps, width, keys.dtype) if config is None else config
    if splits is None:
        splits = split_count(batch * heads, keys.shape[2], config.block, multiprocessors(query.device))
    out = torch.empty_like(query)
    parts = torch.empty(*query.shape[:3], splits if splits > 1 else 0, width, device=query.device)
    sums = torch.empty(*parts.shape[:-1], 2, device=query.device)
    key_scales, value_scales = (keys, keys) if scales is None else scales.unbind()
    inputs = (query, keys, values, key_scales, value_scales, rows, positions.contiguous())
    scale = math.log2(math.e) / math.sqrt(width)
    shape = {"STEPS": steps, "HEADS": heads, "WIDTH": width, "SPLITS": splits}
    constants = {**shape, "BLOCK": config.block, "STAGES": config.stages, "SCALED": scales is not None}
    _read_window[(batch, heads, splits)](
        *inputs, out, parts, sums, keys.shape[2], scale, **constants, num_warps=config.warps
    )
    if splits > 1:
        _join_parts[(batch * steps, heads)](parts, sums, out, **shape, num_warps=1)
    return out


def split_count(programs: int, capacity: int, block: int, on: int) -> int:
    """Return how many programs share the context of a row to fill ``on`` multiprocessors; a power of two."""
    wanted = min(_MAX_SPLITS, -(-_PROGRAMS_PER_MULTIPROCESSOR * on // programs), -(-capacity // block))
    return 1 << (wanted.bit_length() - 1)


def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU; a small number in Triton's interpreter."""
    if device.type != "cuda":
        return _INTERPRETER_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)

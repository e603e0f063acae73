"""Attention of one or two new steps over the ring, in place: rotate and write, then read each row's window once.

A step reads every cached key and value of its rows once and computes little with them, so memory sets the time. One
program serves one row and head, and all its loads are whole vectors. Where rows and heads alone are too few to fill
the GPU, the context is split between programs, and a second kernel puts the parts together.

The ring may hold 8-bit floats (e4m3) with one scale per layer and head.
Shapes: ``B`` rows, ``T`` steps (1 or 2), ``H`` heads, ``C`` ring capacity, ``D`` head dimension, a power of two.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

# Of keys, and of values, that a program loads at once. With more, or with fewer loads in flight, either registers or
# barriers keep fewer programs on a processor.
_TILE = 2048
_STAGES = 3
_MOST_SPLITS = 16
_PROGRAMS_PER_PROCESSOR = 4
_INTERPRETED_PROCESSORS = 8


@triton.jit
def _rotate_and_write(
    projected,
    cos,
    sin,
    rows,
    positions,
    query,
    keys,
    values,
    key_scales,
    value_scales,
    capacity,
    STEPS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALED: tl.constexpr,
):
    """Program (row and step, head): rotates its query and key, puts key and value into the ring."""
    place, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(rows + place // STEPS)
    entry = tl.load(positions + place) % capacity
    lane = tl.arange(0, WIDTH)
    turn_cos = tl.load(cos + place * WIDTH + lane)
    turn_sin = tl.load(sin + place * WIDTH + lane)
    source = projected + (place * 3 * HEADS + head) * WIDTH
    partner = lane ^ 1
    q = tl.load(source + lane).to(tl.float32) * turn_cos + tl.load(source + partner).to(tl.float32) * turn_sin
    source += HEADS * WIDTH
    k = tl.load(source + lane).to(tl.float32) * turn_cos + tl.load(source + partner).to(tl.float32) * turn_sin
    v = tl.load(source + HEADS * WIDTH + lane).to(tl.float32)
    if SCALED:
        k = tl.minimum(tl.maximum(k / tl.load(key_scales + head), -448.0), 448.0)
        v = tl.minimum(tl.maximum(v / tl.load(value_scales + head), -448.0), 448.0)
    tl.store(query + (place * HEADS + head) * WIDTH + lane, q.to(query.dtype.element_ty))
    target = ((slot * HEADS + head) * capacity + entry) * WIDTH + lane
    tl.store(keys + target, k.to(keys.dtype.element_ty))
    tl.store(values + target, v.to(values.dtype.element_ty))


@triton.jit
def _take_in(q, k, v, visible, best, total, mixed):
    """One block of the ring into the running softmax: largest score, sum of weights, weighted sum of values.

    Every lane of a block has a softmax of its own: nothing is exchanged between threads until the end.
    """
    score = tl.sum(q[:, None, :] * k.to(tl.float32)[None, :, :], axis=2)
    score = tl.where(visible, score, float("-inf"))
    new_best = tl.maximum(best, score)
    base = tl.where(new_best == float("-inf"), 0.0, new_best)
    decay, weight = tl.exp2(best - base), tl.exp2(score - base)
    mixed = mixed * decay[:, :, None] + weight[:, :, None] * v.to(tl.float32)[None, :, :]
    return new_best, total * decay + weight, mixed


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
    """Program (row, head, part of the context)."""
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    last = tl.load(positions + row * STEPS + STEPS - 1)
    newest = (last % capacity).to(tl.int32)
    length = tl.minimum(last + 1, capacity).to(tl.int32)
    step, lane, width = tl.arange(0, STEPS), tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    place = ((row * STEPS + step) * HEADS + head) * WIDTH
    q = tl.load(query + place[:, None] + width[None, :]).to(tl.float32) * scale
    if SCALED:
        q *= tl.load(key_scales + head)
    start = (tl.load(rows + row) * HEADS + head) * capacity * WIDTH
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    end = tl.minimum((split + 1) * share, length)
    best = tl.full([STEPS, BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([STEPS, BLOCK], tl.float32)
    mixed = tl.zeros([STEPS, BLOCK, WIDTH], tl.float32)
    for first in tl.range(split * share, end, BLOCK, num_stages=STAGES):
        entry = first + lane
        inside = entry < end
        at = start + entry[:, None] * WIDTH + width[None, :]
        k = tl.load(keys + at, mask=inside[:, None], other=0.0)
        v = tl.load(values + at, mask=inside[:, None], other=0.0)
        # All steps are in the ring before any attends: a query must not see the ones after its own.
        age = (newest - entry + capacity) % capacity
        visible = inside[None, :] & (age[None, :] >= (STEPS - 1 - step)[:, None])
        best, total, mixed = _take_in(q, k, v, visible, best, total, mixed)
    top = tl.max(best, axis=1)
    factor = tl.exp2(best - tl.where(top == float("-inf"), 0.0, top)[:, None])
    total_sum, mixed_sum = tl.sum(total * factor, axis=1), tl.sum(mixed * factor[:, :, None], axis=1)
    if SCALED:
        mixed_sum *= tl.load(value_scales + head)
    if SPLITS == 1:
        tl.store(out + place[:, None] + width[None, :], (mixed_sum / total_sum[:, None]).to(out.dtype.element_ty))
    else:
        part = ((row * HEADS + head) * SPLITS + split) * STEPS + step
        tl.store(parts + part[:, None] * WIDTH + width[None, :], mixed_sum)
        tl.store(sums + part * 2, top)
        tl.store(sums + part * 2 + 1, total_sum)


@triton.jit
def _join_parts(parts, sums, out, STEPS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    """Program (row and step, head): the parts' outputs, each by its share of the softmax's sum."""
    place, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, step = place // STEPS, place % STEPS
    split, width = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    part = ((row * HEADS + head) * SPLITS + split) * STEPS + step
    top = tl.load(sums + part * 2)
    factor = tl.exp2(top - tl.max(top, axis=0))
    total = tl.sum(tl.load(sums + part * 2 + 1) * factor, axis=0)
    mixed = tl.load(parts + part[:, None] * WIDTH + width[None, :])
    mixed = tl.sum(mixed * factor[:, None], axis=0) / total
    tl.store(out + (place * HEADS + head) * WIDTH + width, mixed.to(out.dtype.element_ty))


def rotate_and_write(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    rows: Tensor,
    positions: Tensor,
    keys: Tensor,
    values: Tensor,
    scales: Tensor | None,
) -> Tensor:
    """Rotate queries and keys, put keys and values into one layer of the ring.

    projected: ``[B, T, 3, H, D]``, queries, keys, values. cos, sin: ``[B, 1, T, D]`` float32. rows: ``[B]`` int64.
    positions: ``[B, T]`` int64, consecutive along T. keys, values: ``[slots, H, C, D]``. scales: ``[2, H]`` float32
    for a ring of 8-bit floats. Returns the rotated queries ``[B, T, H, D]`` in the dtype of ``projected``.
    """
    batch, steps, _, heads, width = projected.shape
    query = torch.empty(batch, steps, heads, width, device=projected.device, dtype=projected.dtype)
    key_scales, value_scales = (keys, keys) if scales is None else scales.unbind()
    _rotate_and_write[(batch * steps, heads)](
        projected.contiguous(),
        cos,
        sin,
        rows,
        positions.contiguous(),
        query,
        keys,
        values,
        key_scales,
        value_scales,
        keys.shape[2],
        STEPS=steps,
        HEADS=heads,
        WIDTH=width,
        SCALED=scales is not None,
        num_warps=1,
    )
    return query


def read_window(
    query: Tensor,
    rows: Tensor,
    positions: Tensor,
    keys: Tensor,
    values: Tensor,
    scales: Tensor | None,
    *,
    block: int | None = None,
    splits: int | None = None,
    warps: int = 4,
    stages: int = _STAGES,
) -> Tensor:
    """Scaled dot-product attention of ``query [B, T, H, D]`` over one layer of the ring; same shape and dtype.

    The other arguments are those of :func:`rotate_and_write`. block: entries of the ring that a program loads at once.
    splits: programs that share a row's context; both are powers of two. warps: of a program. stages: blocks that it
    has in flight.
    """
    batch, steps, heads, width = query.shape
    capacity = keys.shape[2]
    block = max(1, _TILE // (steps * width)) if block is None else block
    splits = split_count(batch * heads, capacity, block, processors(query.device)) if splits is None else splits
    out = torch.empty_like(query)
    parts, sums = out, out
    if splits > 1:
        parts = torch.empty(batch, heads, splits, steps, width, device=query.device)
        sums = torch.empty(batch, heads, splits, steps, 2, device=query.device)
    key_scales, value_scales = (keys, keys) if scales is None else scales.unbind()
    _read_window[(batch, heads, splits)](
        query,
        keys,
        values,
        key_scales,
        value_scales,
        rows,
        positions.contiguous(),
        out,
        parts,
        sums,
        capacity,
        math.log2(math.e) / math.sqrt(width),
        STEPS=steps,
        HEADS=heads,
        WIDTH=width,
        BLOCK=block,
        SPLITS=splits,
        STAGES=stages,
        SCALED=scales is not None,
        num_warps=warps,
    )
    if splits > 1:
        shape = {"STEPS": steps, "HEADS": heads, "WIDTH": width, "SPLITS": splits}
        _join_parts[(batch * steps, heads)](parts, sums, out, **shape, num_warps=1)
    return out


def split_count(programs: int, capacity: int, block: int, on: int) -> int:
    """How many programs share a row's context, so that a GPU of ``on`` processors is full; a power of two."""
    wanted = min(_MOST_SPLITS, -(-_PROGRAMS_PER_PROCESSOR * on // programs), -(-capacity // block))
    return 1 << (wanted.bit_length() - 1)


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; a small number in Triton's interpreter."""
    if device.type != "cuda":
        return _INTERPRETED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)

"""One kernel that applies the rotary embedding to new steps and writes their keys and values to the ring."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


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
    """Program (row and step, head): rotate a query and a key, and write the key and the value to the ring."""
    step, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(rows + step // STEPS)
    entry = tl.load(positions + step) % capacity
    lane = tl.arange(0, WIDTH)
    c = tl.load(cos + step * WIDTH + lane)
    s = tl.load(sin + step * WIDTH + lane)
    source = projected + (step * 3 * HEADS + head) * WIDTH
    partner = lane ^ 1
    q = tl.load(source + lane).to(tl.float32) * c + tl.load(source + partner).to(tl.float32) * s
    source += HEADS * WIDTH
    k = tl.load(source + lane).to(tl.float32) * c + tl.load(source + partner).to(tl.float32) * s
    v = tl.load(source + HEADS * WIDTH + lane).to(tl.float32)
    if SCALED:
        k = tl.minimum(tl.maximum(k / tl.load(key_scales + head), -448.0), 448.0)
        v = tl.minimum(tl.maximum(v / tl.load(value_scales + head), -448.0), 448.0)
    tl.store(query + (step * HEADS + head) * WIDTH + lane, q.to(query.dtype.element_ty))
    target = ((slot * HEADS + head) * capacity + entry) * WIDTH + lane
    tl.store(keys + target, k.to(keys.dtype.element_ty))
    tl.store(values + target, v.to(values.dtype.element_ty))


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
    """Rotate queries and keys, and write keys and values to one layer of the ring.

    Args:
        projected: ``[B, T, 3, H, D]``: queries, keys, values; D is a power of two.
        cos: ``[B, 1, T, D]`` float32.
        sin: ``[B, 1, T, D]`` float32.
        rows: ``[B]`` int64, the slot of each row.
        positions: ``[B, T]`` int64, consecutive along T.
        keys: ``[slots, H, C, D]``, updated in step.
        values: ``[slots, H, C, D]``, updated in step.
        scales: ``[2, H]`` float32 for a ring of 8-bit floats, else None.

    Returns:
        The rotated queries ``[B, T, H, D]`` in the dtype of ``projected``.
    """
    batch, steps, _, heads, width = projected.shape
    query = torch.empty(batch, steps, heads, width, device=projected.device, dtype=projected.dtype)
    key_scales, value_scales = (keys, keys) if scales is None else scales.unbind()
    inputs = (projected.contiguous(), cos, sin, rows, positions.contiguous())
    constants = {"STEPS": steps, "HEADS": heads, "WIDTH": width, "SCALED": scales is not None}
    _rotate_and_write[(batch * steps, heads)](
        *inputs, query, keys, values, key_scales, value_scales, keys.shape[2], **constants, num_warps=1
    )
    return query

"""Attention of a few new steps over a ring of cached keys and values.

A ring holds the last C steps of each slot. Keys are rotated before they are cached, so attention does not depend on the
order of the entries. All new steps are written before any of them attends, as in Kyutai's servers. With two steps per
call, the first therefore sees one entry less once the ring is full.

A ring may hold 8-bit floats (e4m3) with one scale per layer and head, in half the memory of bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tympan.models.layers.rope import Rotation, rotate

FP8 = torch.float8_e4m3fn
LARGEST_FP8 = 448.0


@dataclass
class Ring:
    """Cached keys and values of all layers and slots.

    Attributes:
        keys, values: ``[layers, slots, H, C, D]``.
        scales: ``[2, layers, H]`` float32, factors of cached keys and values; None unless the ring holds 8-bit floats.
    """

    keys: Tensor
    values: Tensor
    scales: Tensor | None = None

    @staticmethod
    def empty(
        layers: int,
        slots: int,
        heads: int,
        capacity: int,
        head_dimension: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Ring:
        """Return a ring of zeros; scales are 1."""
        shape = (layers, slots, heads, capacity, head_dimension)
        return Ring(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
            torch.ones(2, layers, heads, device=device) if dtype == FP8 else None,
        )

    @property
    def capacity(self) -> int:
        """Steps that the ring holds per slot."""
        return self.keys.shape[3]


def as_indexable(cache: Tensor) -> Tensor:
    """Return a view that PyTorch can index: 8-bit floats as bytes."""
    return cache.view(torch.uint8) if cache.dtype == FP8 else cache


def to_cache(wide: Tensor, dtype: torch.dtype, scale: Tensor | None) -> Tensor:
    """Convert ``wide [.., H, T, D]`` to the dtype of the cache; ``scale [H]`` is None unless that is FP8."""
    if scale is None:
        return wide.to(dtype)
    return (wide.float() / scale[:, None, None]).clamp(-LARGEST_FP8, LARGEST_FP8).to(dtype)


def from_cache(cached: Tensor, scale: Tensor | None) -> Tensor:
    """Undo :func:`to_cache`: float32 if there is a ``scale [H]``, else the dtype of the cache."""
    return cached if scale is None else cached.float() * scale[:, None, None]


def reset_positions(position: Tensor, rows: Tensor, begin: Tensor | None = None) -> None:
    """Set the position of slots to 0, which is all that distinguishes a new stream from an old one.

    Args:
        position: ``[slots]`` int64, changed in place.
        rows: ``[n]`` int64, slots.
        begin: ``[n]`` int64, positions to use instead of 0; a negative one leaves the slot as it is. Benchmarks start
            streams above 0 to measure the cost of a full ring at once.
    """
    if begin is None:
        position.index_fill_(0, rows, 0)
    else:
        position.index_copy_(0, rows, torch.where(begin < 0, position.index_select(0, rows), begin))


class StepPositions(NamedTuple):
    """Input of the attention kernels: the slot of each row ``[B]`` and the position of each step ``[B, T]``, int64."""

    rows: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Window:
    """Indices and mask of a call's steps in the ring, the same for every layer.

    Attributes:
        rows: ``[B]`` int64, slot of each row.
        entries: ``[B * H * T]`` int64, index of each new vector in a layer's ring seen as ``[slots * H * C, D]``.
        visible: ``[B, T, C]`` bool, entries that a step attends to.
    """

    rows: Tensor
    entries: Tensor
    visible: Tensor


def make_window(rows: Tensor, positions: Tensor, ring: Ring) -> Window:
    """Return the window of steps at ``positions [B, T]`` int64, consecutive along T, of slots ``rows [B]`` int64."""
    heads, capacity = ring.keys.shape[2:4]
    device = rows.device
    last = positions[:, -1]
    head = torch.arange(heads, device=device)
    entries = ((rows[:, None] * heads + head) * capacity)[:, :, None] + (positions % capacity)[:, None]
    age = (last[:, None] - torch.arange(capacity, device=device)) % capacity  # of each entry, 0 = newest
    written = last[:, None] - age  # the position that each entry holds, negative = none
    visible = (written >= 0)[:, None] & (written[:, None] <= positions[:, :, None])
    return Window(rows, entries.flatten(), visible)


def update_and_attend(
    projected: Tensor, ring: Ring, layer: int, seen: Window | StepPositions, rope: Rotation
) -> Tensor:
    """Rotate queries and keys, write keys and values to one layer of the ring, and attend over it.

    Args:
        projected: ``[B, T, 3, H, D]``: queries, keys and values.
        ring: The ring; layer ``layer`` is updated in place.
        layer: Index of the layer.
        seen: Where the steps belong; a `StepPositions` selects the Triton kernels.
        rope: The rotation at the positions of the steps.

    Returns:
        ``[B, T, H * D]`` in the dtype of ``projected``.
    """
    if isinstance(seen, StepPositions):
        return _mix_in_kernels(projected, ring, layer, seen, rope)
    rotated = rotate(projected[:, :, :2].flatten(2, 3).transpose(1, 2), rope)  # [B, 2 * H, T, D]
    query, key = rotated.chunk(2, dim=1)
    write(ring, layer, key, projected[:, :, 2].transpose(1, 2), seen)
    return attend(query, ring, layer, seen).transpose(1, 2).flatten(-2)


def _mix_in_kernels(projected: Tensor, ring: Ring, layer: int, seen: StepPositions, rope: Rotation) -> Tensor:
    from tympan.models.kernels.attention import ring_attention
    from tympan.models.kernels.ring_write import rotate_and_write

    keys, values = ring.keys[layer], ring.values[layer]
    scales = None if ring.scales is None else ring.scales[:, layer]
    query = rotate_and_write(projected, rope.cos, rope.sin, seen.rows, seen.positions, keys, values, scales)
    return ring_attention(query, seen.rows, seen.positions, keys, values, scales).flatten(-2)


def write(ring: Ring, layer: int, keys: Tensor, values: Tensor, into: Window) -> None:
    """Write new ``keys`` and ``values [B, H, T, D]`` to one layer of the ring."""
    for kind, (cache, new) in enumerate(((ring.keys, keys), (ring.values, values))):
        scale = None if ring.scales is None else ring.scales[kind, layer]
        flat = as_indexable(cache)[layer].view(-1, new.shape[-1])
        flat.index_copy_(0, into.entries, as_indexable(to_cache(new, cache.dtype, scale).reshape(-1, new.shape[-1])))


def attend(query: Tensor, ring: Ring, layer: int, over: Window) -> Tensor:
    """Return scaled dot-product attention of ``query [B, H, T, D]`` over one layer; same shape and dtype."""
    keys, values = ring.keys[layer], ring.values[layer]
    scales = (None, None) if ring.scales is None else ring.scales[:, layer].unbind()
    return attend_gathered(query, keys, values, scales, over)


def attend_gathered(
    query: Tensor, keys: Tensor, values: Tensor, scales: tuple[Tensor | None, ...], over: Window
) -> Tensor:
    """Attend over copies of the rows' rings.

    Args:
        query: ``[B, H, T, D]``.
        keys: ``[slots, H, C, D]``, one layer.
        values: ``[slots, H, C, D]``.
        scales: Factors ``[H]`` of keys and values; None unless they are 8-bit floats.
        over: The window of the queries.

    Returns:
        The shape and dtype of ``query``.
    """
    gathered = (as_indexable(cache).index_select(0, over.rows).view(cache.dtype) for cache in (keys, values))
    k, v = (from_cache(cached, scale).to(query.dtype) for cached, scale in zip(gathered, scales, strict=True))
    # Memory that was never written may hold anything, and 0 * NaN is NaN.
    unseen = ~over.visible[:, -1, :, None].unsqueeze(1)
    v = v.masked_fill(unseen, 0)
    k = k.masked_fill(unseen, 0)
    return functional.scaled_dot_product_attention(query, k, v, attn_mask=over.visible[:, None])

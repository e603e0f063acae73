"""Attention of a few new steps over a ring of cached keys and values.

A ring holds the last ``C`` steps of each slot. Keys are rotated before they are cached, so attention need not know
the order of the entries, only which of them each query may see. All new steps are written before any of them attends,
as Kyutai's servers do; with two steps per call the first therefore sees one entry less once the ring is full.

Shapes: ``B`` rows in this call, ``T`` new steps, ``H`` heads, ``C`` ring capacity, ``D`` head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tympan.models.attention_cpu import Bags, attend_in_bags, bags, empty_keys, write_keys


@dataclass
class Ring:
    """Keys and values of all layers and slots, ``[layers, slots, H, C, D]``."""

    keys: Tensor
    values: Tensor

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
        shape = (layers, slots, heads, capacity, head_dimension)
        on_cpu = device.type == "cpu"
        keys = empty_keys(shape, dtype) if on_cpu else torch.zeros(shape, device=device, dtype=dtype)
        return Ring(keys, torch.zeros(shape, device=device, dtype=dtype))

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]


@dataclass(frozen=True)
class Window:
    """Where this call's steps go in the ring and what they may see; the same for every layer.

    rows: ``[B]`` int64, slot of each row.
    lengths: ``[B]`` int64, filled entries of the ring once this call's steps are in it.
    entries: ``[B * H * T]`` int64, index of each new vector in a layer's ring seen as ``[slots * H * C, D]``.
    visible: ``[B, T, C]`` bool, entry may be attended to by the query.
    bags: the same as rows of tables, on a CPU only.
    """

    rows: Tensor
    lengths: Tensor
    entries: Tensor
    visible: Tensor
    bags: Bags | None


def window(rows: Tensor, positions: Tensor, ring: Ring) -> Window:
    """The window for steps at ``positions [B, T]`` int64 (consecutive along T) of slots ``rows [B]``."""
    _, _, heads, capacity, width = ring.keys.shape
    device = rows.device
    last = positions[:, -1]
    lengths = (last + 1).clamp(max=capacity)
    head = torch.arange(heads, device=device)
    entries = ((rows[:, None] * heads + head) * capacity)[:, :, None] + (positions % capacity)[:, None]
    age = (last[:, None] - torch.arange(capacity, device=device)) % capacity  # of each entry, 0 = newest
    written = last[:, None] - age  # the position that each entry holds, negative = none
    visible = (written >= 0)[:, None] & (written[:, None] <= positions[:, :, None])
    summed = bags(rows, positions, visible, heads, width) if device.type == "cpu" else None
    return Window(rows, lengths, entries.flatten(), visible, summed)


def write(ring: Ring, layer: int, keys: Tensor, values: Tensor, into: Window) -> None:
    """Put the new ``keys`` and ``values [B, H, T, D]`` of one layer into the ring."""
    _write_rows(ring.values[layer], values, into)
    if into.bags is None:
        _write_rows(ring.keys[layer], keys, into)
    else:
        write_keys(ring.keys[layer], keys, into.bags)


def _write_rows(cache: Tensor, new: Tensor, into: Window) -> None:
    width = new.shape[-1]
    cache.view(-1, width).index_copy_(0, into.entries, new.reshape(-1, width).to(cache.dtype))


def attend(query: Tensor, ring: Ring, layer: int, over: Window) -> Tensor:
    """Scaled dot-product attention of ``query [B, H, T, D]`` over one layer of the ring; same shape and dtype."""
    keys, values = ring.keys[layer], ring.values[layer]
    if over.bags is not None:
        return attend_in_bags(query, keys, values, over.bags)
    # Gathering copies the ring; a kernel that reads it in place takes this function's place on a GPU.
    k, v = keys[over.rows].to(query.dtype), values[over.rows].to(query.dtype)
    # Memory that was never written may hold anything, and 0 * NaN is NaN.
    unseen = ~over.visible[:, -1, :, None].unsqueeze(1)
    v = v.masked_fill(unseen, 0)
    k = k.masked_fill(unseen, 0)
    return functional.scaled_dot_product_attention(query, k, v, attn_mask=over.visible[:, None])

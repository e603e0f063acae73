"""Attention of a few new steps over a ring of cached keys and values.

A ring holds the last ``C`` steps of each slot. Keys are rotated before they are cached, so attention need not know
the order of the entries, only which of them each query may see. All new steps are written before any of them attends,
as Kyutai's servers do; with two steps per call the first therefore sees one entry less once the ring is full.

Shapes: ``B`` rows in this call, ``T`` new steps, ``H`` heads, ``C`` ring capacity, ``D`` head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


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
        return Ring(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]


class Run(NamedTuple):
    """``rows`` rows from ``row`` on that lie in consecutive slots from ``slot`` on, each with ``length`` entries."""

    row: int
    slot: int
    rows: int
    length: int


@dataclass(frozen=True)
class Window:
    """Where this call's steps go in the ring and what they may see; the same for every layer.

    rows: ``[B]`` int64, slot of each row.
    lengths: ``[B]`` int64, filled entries of the ring once this call's steps are in it.
    entries: ``[B * H * T]`` int64, index of each new vector in a layer's ring seen as ``[slots * H * C, D]``.
    visible: ``[B, T, C]`` bool, entry may be attended to by the query.
    bias: ``[B, T, C]`` float32, the same to be added to scores: 0 or minus infinity.
    runs: the rows as plain numbers, on a CPU only (there it costs nothing and saves copying the ring).
    """

    rows: Tensor
    lengths: Tensor
    entries: Tensor
    visible: Tensor
    bias: Tensor
    runs: tuple[Run, ...]


def window(rows: Tensor, positions: Tensor, ring: Ring) -> Window:
    """The window for steps at ``positions [B, T]`` int64 (consecutive along T) of slots ``rows [B]``."""
    _, _, heads, capacity, _ = ring.keys.shape
    device = rows.device
    last = positions[:, -1]
    lengths = (last + 1).clamp(max=capacity)
    head = torch.arange(heads, device=device)
    entries = ((rows[:, None] * heads + head) * capacity)[:, :, None] + (positions % capacity)[:, None]
    age = (last[:, None] - torch.arange(capacity, device=device)) % capacity  # of each entry, 0 = newest
    written = last[:, None] - age  # the position that each entry holds, negative = none
    visible = (written >= 0)[:, None] & (written[:, None] <= positions[:, :, None])
    runs = _runs(rows.tolist(), lengths.tolist()) if device.type == "cpu" else ()
    bias = torch.zeros(visible.shape, device=device).masked_fill_(~visible, -torch.inf)
    return Window(rows, lengths, entries.flatten(), visible, bias, runs)


def _runs(slots: list[int], lengths: list[int]) -> tuple[Run, ...]:
    runs: list[Run] = []
    for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
        if runs and (runs[-1].slot + runs[-1].rows, runs[-1].length) == (slot, length):
            runs[-1] = runs[-1]._replace(rows=runs[-1].rows + 1)
        else:
            runs.append(Run(row, slot, 1, length))
    return tuple(runs)


def write(ring: Ring, layer: int, keys: Tensor, values: Tensor, into: Window) -> None:
    """Put the new ``keys`` and ``values [B, H, T, D]`` of one layer into the ring."""
    width = keys.shape[-1]
    for cache, new in ((ring.keys, keys), (ring.values, values)):
        flat = cache[layer].view(-1, width)
        flat.index_copy_(0, into.entries, new.reshape(-1, width).to(cache.dtype))


def attend(query: Tensor, ring: Ring, layer: int, over: Window) -> Tensor:
    """Scaled dot-product attention of ``query [B, H, T, D]`` over one layer of the ring; same shape and dtype."""
    keys, values = ring.keys[layer], ring.values[layer]
    if query.device.type == "cpu":
        return _attend_in_place(query, keys, values, over)
    # Gathering copies the ring; a kernel that reads it in place takes this function's place on a GPU.
    k, v = keys[over.rows].to(query.dtype), values[over.rows].to(query.dtype)
    # Memory that was never written may hold anything, and 0 * NaN is NaN.
    unseen = ~over.visible[:, -1, :, None].unsqueeze(1)
    v = v.masked_fill(unseen, 0)
    k = k.masked_fill(unseen, 0)
    return functional.scaled_dot_product_attention(query, k, v, attn_mask=over.visible[:, None])


def _attend_in_place(query: Tensor, keys: Tensor, values: Tensor, over: Window) -> Tensor:
    """Run by run on views of the ring: nothing is copied, cost follows each stream's length.

    The kernel treats rows apart, so a row's result does not depend on its neighbours, not even in the last bit.
    """
    single = query.shape[2] == 1
    asked = query.to(keys.dtype)  # not the ring to the query's: that would copy all of it
    parts = []
    for row, slot, count, length in over.runs:
        bias = None if single else over.bias[row : row + count, None, :, :length].to(keys.dtype)
        parts.append(
            functional.scaled_dot_product_attention(
                asked[row : row + count],
                keys[slot : slot + count, :, :length],
                values[slot : slot + count, :, :length],
                attn_mask=bias,
            )
        )
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(query.dtype)

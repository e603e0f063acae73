"""Attention of a few new steps over a ring of cached keys and values.

A ring holds the last ``C`` steps of each slot. Keys are rotated before they are cached, so attention need not know
the order of the entries, only which of them each query may see. All new steps are written before any of them attends,
as Kyutai's servers do; with two steps per call the first therefore sees one entry less once the ring is full.

A ring may hold 8-bit floats (e4m3) with one scale per layer and head: half the memory of bf16.

Shapes: ``B`` rows in this call, ``T`` new steps, ``H`` heads, ``C`` ring capacity, ``D`` head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tympan.models import kernels
from tympan.models.layers.attention_cpu import Bags, attend_in_bags, bags, empty_keys, write_keys
from tympan.models.layers.rope import Rotation, rotate

FP8 = torch.float8_e4m3fn
LARGEST_FP8 = 448.0


@dataclass
class Ring:
    """Keys and values of all layers and slots, ``[layers, slots, H, C, D]``.

    scales: ``[2, layers, H]`` float32, what a cached key (value) of a ring of 8-bit floats is to be multiplied by.
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
        shape = (layers, slots, heads, capacity, head_dimension)
        keys = torch.zeros(shape, device=device, dtype=dtype)
        return Ring(
            empty_keys(shape, dtype) if sums_in_bags(keys) else keys,
            torch.zeros(shape, device=device, dtype=dtype),
            torch.ones(2, layers, heads, device=device) if dtype == FP8 else None,
        )

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]


def sums_in_bags(keys: Tensor) -> bool:
    """Whether attention over such a cache is summed by `attention_cpu`, for which keys lie transposed."""
    return keys.device.type == "cpu" and keys.dtype != FP8 and not kernels.usable(keys.device)


def raw(cache: Tensor) -> Tensor:
    """The cache as PyTorch can index it: 8-bit floats as bytes."""
    return cache.view(torch.uint8) if cache.dtype == FP8 else cache


def encode(wide: Tensor, dtype: torch.dtype, scale: Tensor | None) -> Tensor:
    """``wide [.., H, T, D]`` as it is cached; ``scale [H]`` for 8-bit floats."""
    if scale is None:
        return wide.to(dtype)
    return (wide.float() / scale[:, None, None]).clamp(-LARGEST_FP8, LARGEST_FP8).to(dtype)


def decode(cached: Tensor, scale: Tensor | None) -> Tensor:
    """The inverse: float32 where there is a ``scale [H]``, the cache's own type otherwise."""
    return cached if scale is None else cached.float() * scale[:, None, None]


class Places(NamedTuple):
    """What a kernel needs of :class:`Window`: slot of each row ``[B]``, position of each step ``[B, T]``, int64."""

    rows: Tensor
    positions: Tensor


def restart(position: Tensor, rows: Tensor, begin: Tensor | None = None) -> None:
    """Set ``position [slots]`` of slots ``rows [n]`` to 0, or to ``begin [n]`` int64 where that is not negative.

    Nothing else tells a new stream from an old one. To begin above 0 is for measuring: such a stream costs at once what
    one of that age costs.
    """
    if begin is None:
        position.index_fill_(0, rows, 0)
    else:
        position.index_copy_(0, rows, torch.where(begin < 0, position.index_select(0, rows), begin))


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
    summed = bags(rows, positions, visible, heads, width) if sums_in_bags(ring.keys) else None
    return Window(rows, lengths, entries.flatten(), visible, summed)


def places(rows: Tensor, positions: Tensor, ring: Ring) -> Window | Places:
    """What :func:`mix` needs to know, once for all layers; arguments as for :func:`window`."""
    return Places(rows, positions) if kernels.usable(rows.device) else window(rows, positions, ring)


def mix(projected: Tensor, ring: Ring, layer: int, seen: Window | Places, turn: Rotation) -> Tensor:
    """Rotate, write to the ring, attend: ``projected [B, T, 3, H, D]`` (queries, keys, values) to ``[B, T, H * D]``."""
    if isinstance(seen, Places):
        return _mix_in_kernels(projected, ring, layer, seen, turn)
    turned = rotate(projected[:, :, :2].flatten(2, 3).transpose(1, 2), turn)  # [B, 2 * H, T, D]
    query, key = turned.chunk(2, dim=1)
    write(ring, layer, key, projected[:, :, 2].transpose(1, 2), seen)
    return attend(query, ring, layer, seen).transpose(1, 2).flatten(-2)


def _mix_in_kernels(projected: Tensor, ring: Ring, layer: int, seen: Places, turn: Rotation) -> Tensor:
    from tympan.models.kernels.attention import read_window
    from tympan.models.kernels.ring_write import rotate_and_write

    keys, values = ring.keys[layer], ring.values[layer]
    scales = None if ring.scales is None else ring.scales[:, layer]
    query = rotate_and_write(projected, turn.cos, turn.sin, seen.rows, seen.positions, keys, values, scales)
    return read_window(query, seen.rows, seen.positions, keys, values, scales).flatten(-2)


def write(ring: Ring, layer: int, keys: Tensor, values: Tensor, into: Window) -> None:
    """Put the new ``keys`` and ``values [B, H, T, D]`` of one layer into the ring."""
    for kind, (cache, new) in enumerate(((ring.keys, keys), (ring.values, values))):
        if kind == 0 and into.bags is not None:
            write_keys(cache[layer], new, into.bags)
            continue
        scale = None if ring.scales is None else ring.scales[kind, layer]
        flat = raw(cache)[layer].view(-1, new.shape[-1])
        flat.index_copy_(0, into.entries, raw(encode(new, cache.dtype, scale).reshape(-1, new.shape[-1])))


def attend(query: Tensor, ring: Ring, layer: int, over: Window) -> Tensor:
    """Scaled dot-product attention of ``query [B, H, T, D]`` over one layer of the ring; same shape and dtype."""
    keys, values = ring.keys[layer], ring.values[layer]
    if over.bags is not None:
        return attend_in_bags(query, keys, values, over.bags)
    scales = (None, None) if ring.scales is None else ring.scales[:, layer].unbind()
    return attend_gathered(query, keys, values, scales, over)


def attend_gathered(
    query: Tensor, keys: Tensor, values: Tensor, scales: tuple[Tensor | None, ...], over: Window
) -> Tensor:
    """On copies of the rows' rings, on any device: for GPUs without kernels, and for 8-bit floats on a CPU."""
    gathered = (raw(cache).index_select(0, over.rows).view(cache.dtype) for cache in (keys, values))
    k, v = (decode(cached, scale).to(query.dtype) for cached, scale in zip(gathered, scales, strict=True))
    # Memory that was never written may hold anything, and 0 * NaN is NaN.
    unseen = ~over.visible[:, -1, :, None].unsqueeze(1)
    v = v.masked_fill(unseen, 0)
    k = k.masked_fill(unseen, 0)
    return functional.scaled_dot_product_attention(query, k, v, attn_mask=over.visible[:, None])

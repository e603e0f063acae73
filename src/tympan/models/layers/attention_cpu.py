"""Attention over a ring on a CPU, as two weighted sums of table rows.

A query attends with one row per head, and matrix products of one row read a ring at a fraction of the memory's speed.
``embedding_bag`` with weights reads it three to five times as fast: ``scores = sum_d query[d] * keys[d, :]`` over the
transposed keys, ``mixed = sum_c probability[c] * values[c, :]``. So a layer's keys lie as ``[slots, H, D, C]`` in
memory; whoever asks the ring for its keys sees ``[slots, H, C, D]`` all the same.

A bag is summed by itself, in the order of its entries: to the bit, a row's result does not depend on its neighbours.

Shapes: ``B`` rows in this call, ``T`` new steps, ``H`` heads, ``C`` ring capacity, ``D`` head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bags:
    """Which table rows each query sums, the same for every layer; all int64 but ``hidden``.

    written: ``[B * H * T * D]``, place of each new key's elements in a layer's keys.
    key_rows: ``[B * H * T * D]``, rows of the keys' table ``[slots * H * D, C]``; key_starts: ``[B * H * T]``.
    value_rows, value_starts: the same for the values' table ``[slots * H * C, D]``, filled entries only.
    hidden: ``[B, 1, T, C]`` bool, entries that a query may not see; None if it may see all.
    chosen: which of the ``[B, H, T, C]`` probabilities have an entry in ``value_rows``; None if all.
    """

    written: Tensor
    key_rows: Tensor
    key_starts: Tensor
    value_rows: Tensor
    value_starts: Tensor
    hidden: Tensor | None
    chosen: Tensor | None


def empty_keys(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros ``[.., C, D]`` that lie in memory as ``[.., D, C]``."""
    return torch.zeros(*shape[:-2], shape[-1], shape[-2], dtype=dtype).transpose(-1, -2)


def bags(rows: Tensor, positions: Tensor, visible: Tensor, heads: int, dimension: int) -> Bags:
    """For steps at ``positions [B, T]`` of slots ``rows [B]`` that see ``visible [B, T, C]`` of their rings."""
    batch, steps, capacity = visible.shape
    head = rows[:, None] * heads + torch.arange(heads)  # [B, H], of all heads of all slots
    key_rows = head[:, :, None, None] * dimension + torch.arange(dimension)  # [B, H, 1, D]
    written = key_rows * capacity + (positions % capacity)[:, None, :, None]  # [B, H, T, D]
    key_rows = key_rows.expand(written.shape)
    value_rows = (head[:, :, None, None] * capacity + torch.arange(capacity)).expand(-1, -1, steps, -1)
    filled = visible[:, -1]  # the newest step sees every filled entry
    counts = filled.sum(dim=1)[:, None, None].expand(batch, heads, steps).flatten()
    chosen = None
    if not filled.all():
        chosen = filled[:, None, None].expand(value_rows.shape).flatten().nonzero()[:, 0]
    values = value_rows.flatten()
    return Bags(
        written=written.flatten(),
        key_rows=key_rows.flatten(),
        key_starts=torch.arange(batch * heads * steps) * dimension,
        value_rows=values if chosen is None else values.index_select(0, chosen),
        value_starts=counts.cumsum(0) - counts,
        hidden=None if visible.all() else ~visible[:, None],
        chosen=chosen,
    )


def write_keys(keys: Tensor, new: Tensor, into: Bags) -> None:
    """Put ``new [B, H, T, D]`` into one layer's ``keys [slots, H, C, D]`` that lie transposed."""
    keys.transpose(-1, -2).view(-1).put_(into.written, new.flatten().to(keys.dtype))


def attend_in_bags(query: Tensor, keys: Tensor, values: Tensor, over: Bags) -> Tensor:
    """Scaled dot-product attention of ``query [B, H, T, D]`` over one layer; softmax in float32, sums in the ring's."""
    batch, heads, steps, width = query.shape
    capacity = keys.shape[2]
    weights = (query.float() * width**-0.5).to(keys.dtype).flatten()
    table = keys.transpose(-1, -2).reshape(-1, capacity)
    scores = _weighted_sums(table, over.key_rows, over.key_starts, weights).view(batch, heads, steps, capacity).float()
    if over.hidden is not None:
        scores.masked_fill_(over.hidden, -torch.inf)  # not added: memory that was never written may hold anything
    probabilities = scores.softmax(dim=-1).to(values.dtype).flatten()
    if over.chosen is not None:
        probabilities = probabilities.index_select(0, over.chosen)
    mixed = _weighted_sums(values.view(-1, width), over.value_rows, over.value_starts, probabilities)
    return mixed.view(query.shape).to(query.dtype)


def _weighted_sums(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """One sum of ``weights * table[rows]`` per bag; bags begin at ``starts``."""
    sums: Tensor = torch.embedding_bag(table, rows, starts, False, 0, False, weights)[0]
    return sums

"""Attention over a ring on a CPU, as two weighted sums of table rows.

Each head of a row has one query per step. A matrix product with a single row reads the ring at a fraction of the
memory's speed; a weighted ``embedding_bag`` is three to five times as fast. The scores are ``sum_d query[d] *
keys[d, :]`` over transposed keys, the output is ``sum_c probability[c] * values[c, :]``. The keys of a layer are
therefore stored as ``[slots, H, D, C]``; the ring shows them as a view ``[slots, H, C, D]``.

Each bag is summed separately, in the order of its entries: the result of a row does not depend on the other rows, to
the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BagIndices:
    """Table rows that each query sums, the same for every layer; int64 unless stated otherwise.

    Attributes:
        new_keys: ``[B * H * T * D]``, index of each element of the new keys in a layer's keys.
        key_rows: ``[B * H * T * D]``, rows of the key table ``[slots * H * D, C]``.
        key_offsets: ``[B * H * T]``, where each bag starts in ``key_rows``.
        value_rows: The same for the value table ``[slots * H * C, D]``, filled entries only.
        value_offsets: ``[B * H * T]``, where each bag starts in ``value_rows``.
        masked: ``[B, 1, T, C]`` bool, entries that a query must not attend to; None if there are none.
        filled: Indices of those of the ``[B, H, T, C]`` probabilities whose entry is filled; None for all.
    """

    new_keys: Tensor
    key_rows: Tensor
    key_offsets: Tensor
    value_rows: Tensor
    value_offsets: Tensor
    masked: Tensor | None
    filled: Tensor | None


def empty_keys(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros ``[.., C, D]`` that are stored as ``[.., D, C]``."""
    return torch.zeros(*shape[:-2], shape[-1], shape[-2], dtype=dtype).transpose(-1, -2)


def bag_indices(rows: Tensor, positions: Tensor, visible: Tensor, heads: int, dimension: int) -> BagIndices:
    """Return the indices for steps at ``positions [B, T]`` of slots ``rows [B]`` that see ``visible [B, T, C]``."""
    batch, steps, capacity = visible.shape
    head = rows[:, None] * heads + torch.arange(heads)  # [B, H], of all heads of all slots
    key_rows = head[:, :, None, None] * dimension + torch.arange(dimension)  # [B, H, 1, D]
    new_keys = key_rows * capacity + (positions % capacity)[:, None, :, None]  # [B, H, T, D]
    key_rows = key_rows.expand(new_keys.shape)
    value_rows = (head[:, :, None, None] * capacity + torch.arange(capacity)).expand(-1, -1, steps, -1)
    written = visible[:, -1]  # the newest step sees every filled entry
    counts = written.sum(dim=1)[:, None, None].expand(batch, heads, steps).flatten()
    filled = None
    if not written.all():
        filled = written[:, None, None].expand(value_rows.shape).flatten().nonzero()[:, 0]
    values = value_rows.flatten()
    return BagIndices(
        new_keys=new_keys.flatten(),
        key_rows=key_rows.flatten(),
        key_offsets=torch.arange(batch * heads * steps) * dimension,
        value_rows=values if filled is None else values.index_select(0, filled),
        value_offsets=counts.cumsum(0) - counts,
        masked=None if visible.all() else ~visible[:, None],
        filled=filled,
    )


def write_keys(keys: Tensor, new: Tensor, into: BagIndices) -> None:
    """Write ``new [B, H, T, D]`` to one layer's ``keys [slots, H, C, D]``, which are stored transposed."""
    keys.transpose(-1, -2).view(-1).put_(into.new_keys, new.flatten().to(keys.dtype))


def attend_in_bags(query: Tensor, keys: Tensor, values: Tensor, over: BagIndices) -> Tensor:
    """Return scaled dot-product attention over one layer.

    The softmax is computed in float32, the sums in the dtype of the ring.

    Args:
        query: ``[B, H, T, D]``.
        keys: ``[slots, H, C, D]``, stored transposed.
        values: ``[slots, H, C, D]``.
        over: The entries that each query attends to.

    Returns:
        The shape and dtype of ``query``.
    """
    batch, heads, steps, width = query.shape
    capacity = keys.shape[2]
    weights = (query.float() * width**-0.5).to(keys.dtype).flatten()
    table = keys.transpose(-1, -2).reshape(-1, capacity)
    scores = _weighted_sums(table, over.key_rows, over.key_offsets, weights).view(batch, heads, steps, capacity).float()
    if over.masked is not None:
        scores.masked_fill_(over.masked, -torch.inf)  # not added: memory that was never written may hold anything
    probabilities = scores.softmax(dim=-1).to(values.dtype).flatten()
    if over.filled is not None:
        probabilities = probabilities.index_select(0, over.filled)
    mixed = _weighted_sums(values.view(-1, width), over.value_rows, over.value_offsets, probabilities)
    return mixed.view(query.shape).to(query.dtype)


def _weighted_sums(table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Return one sum of ``weights * table[rows]`` per bag."""
    sums: Tensor = torch.embedding_bag(table, rows, offsets, False, 0, False, weights)[0]
    return sums

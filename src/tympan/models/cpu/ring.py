"""Attention over a ring: each row reads its slot's keys and values in place.

The rings of a batch are not copied to one place, which would take as long as reading them: slots that lie next to each
other are read by one call, others by one call each. Every row has its own products, so its result does not depend on
the other rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tympan.models.config import TransformerConfig
from tympan.models.cpu.graph import Array, Graph, Session
from tympan.models.layers.attention import Ring, attend_gathered, make_window, write

_READ_IN_PLACE = {torch.float32: np.float32, torch.float16: np.float16}


class Attention(Protocol):
    """Attention of one call's rows."""

    def attend(self, layer: int, query: Array, key: Array, value: Array, *, out: Array) -> None:
        """Write ``key`` and ``value [B, H, T, D]`` to a layer of the ring, and attend over it.

        The result for ``query [B, H, T, D]`` is written to ``out [B, T, H * D]``.
        """


class RingAttention:
    """Creates the rings of a transformer, and attends over them.

    A ring of float32 or f16 is read in place. One of another type is a ring as on a GPU without kernels, and is
    computed by PyTorch.
    """

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config
        self._session = functools.cache(self._make_session)

    def empty(self, slots: int, dtype: torch.dtype) -> Ring:
        """Return a ring of zeros."""
        config = self.config
        sizes = (config.layers, slots, config.heads, config.context, config.head_dimension)
        if dtype not in _READ_IN_PLACE:
            return Ring.empty(*sizes, device=torch.device("cpu"), dtype=dtype)
        # NumPy asks Linux for large pages, which are allocated several times as fast as small ones.
        keys, values = (np.full(sizes, 0, dtype=_READ_IN_PLACE[dtype]) for _ in range(2))
        return Ring(torch.from_numpy(keys), torch.from_numpy(values))

    def over(self, ring: Ring, rows: Tensor, positions: Tensor) -> Attention:
        """Return the attention of steps at ``positions [B, T]`` of slots ``rows [B]``."""
        if ring.keys.dtype not in _READ_IN_PLACE:
            return _Gathered(ring, rows, positions)
        return _InPlace(ring, rows, positions, self._session(positions.shape[1], ring.keys.dtype))

    def _make_session(self, steps: int, dtype: torch.dtype) -> Session:
        """Return the graph of the attention of slots next to each other.

        Inputs: scaled query ``[B, H, T, D]`` float32; keys and values ``[B, 1, H, C, D]`` of ``dtype``; visible entries
        ``[B, T, 1, 1, C]`` bool. Output: ``[B, T, dimension]`` float32.
        """
        heads, width, capacity = self.config.heads, self.config.head_dimension, self.config.context
        graph = Graph()
        query = graph.input("batch", heads, steps, width)
        keys, values = (graph.input("batch", 1, heads, capacity, width, dtype=dtype) for _ in range(2))
        visible = graph.input("batch", steps, 1, 1, capacity, dtype=torch.bool)
        # One product per step and head: products of a single row need no copy of the keys and values.
        by_step = graph.op("Unsqueeze", graph.op("Transpose", query, perm=[0, 2, 1, 3]), graph.constant([3]))
        # Scaled before: ONNX Runtime merges a factor into the product, which then takes twice as long.
        scores = graph.own_op("FusedMatMul", by_step, graph.widened(keys, dtype), transB=1)  # [B, T, H, 1, C]
        # Selected and not added: entries that were never written may hold anything.
        masked = graph.op("Where", visible, scores, graph.constant(float("-inf")))
        mixed = graph.op("MatMul", graph.op("Softmax", masked, axis=-1), graph.widened(values, dtype))
        return graph.compile(graph.reshape(mixed, 0, steps, -1))


class _InPlace:
    def __init__(self, ring: Ring, rows: Tensor, positions: Tensor, session: Session) -> None:
        capacity, steps = ring.capacity, positions.numpy()
        self._session = session
        self._scale = np.float32(ring.keys.shape[-1] ** -0.5)
        self._keys, self._values = ring.keys.numpy()[:, :, None], ring.values.numpy()[:, :, None]
        self._slots, self._entries = rows.numpy()[:, None], steps % capacity
        last = steps[:, -1:]
        written = last - (last - np.arange(capacity)) % capacity  # the position that each entry holds, negative = none
        for slot, first in zip(rows.tolist(), steps[:, 0].tolist(), strict=True):
            if first <= 1:  # a new stream: NaN of the last one would stay NaN when they are weighted by zero
                self._values[:, slot, :, :, first:] = 0
        self._visible = ((written >= 0)[:, None] & (written[:, None] <= steps[:, :, None]))[:, :, None, None]
        self._groups = list(_neighbours(rows.tolist()))

    def attend(self, layer: int, query: Array, key: Array, value: Array, *, out: Array) -> None:
        keys, values = self._keys[layer], self._values[layer]
        keys[self._slots, 0, :, self._entries] = key.swapaxes(1, 2)
        values[self._slots, 0, :, self._entries] = value.swapaxes(1, 2)
        scaled = query * self._scale
        for rows, slots in self._groups:
            (out[rows],) = self._session.run(scaled[rows], keys[slots], values[slots], self._visible[rows])


def _neighbours(slots: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield the longest groups of successive rows that have successive slots, as rows and slots."""
    first = 0
    for row, slot in enumerate(slots, start=1):
        if row == len(slots) or slots[row] != slot + 1:
            yield slice(first, row), slice(slots[first], slot + 1)
            first = row


class _Gathered:
    def __init__(self, ring: Ring, rows: Tensor, positions: Tensor) -> None:
        self._ring = ring
        self._window = make_window(rows, positions, ring)

    def attend(self, layer: int, query: Array, key: Array, value: Array, *, out: Array) -> None:
        ring, window = self._ring, self._window
        write(ring, layer, torch.from_numpy(key), torch.from_numpy(value), window)
        scales = (None, None) if ring.scales is None else ring.scales[:, layer].unbind()
        mixed = attend_gathered(torch.from_numpy(query), ring.keys[layer], ring.values[layer], scales, window)
        out[:] = mixed.transpose(1, 2).flatten(-2).numpy()

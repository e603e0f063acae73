"""Counts the flushes that the channels of a session have not answered yet."""

from __future__ import annotations

from collections import Counter
from typing import Final

MOST_PENDING: Final = 32
"""Flushes of one session at once; a client that requests more waits for the answers."""


class FlushAnswers:
    """Answers a flush once every channel has answered it. Markers may repeat."""

    def __init__(self) -> None:
        self._channels = 1
        self._by_marker: Counter[int] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether as many flushes are pending as may be."""
        return self._by_marker.total() >= MOST_PENDING * self._channels

    @property
    def is_pending(self) -> bool:
        """Whether a flush has not been answered."""
        return bool(self._by_marker)

    def add(self, marker: int, channels: int) -> None:
        """Count a flush that was sent to all channels."""
        self._channels = channels
        self._by_marker[marker] += channels

    def answer(self, marker: int) -> bool:
        """Count the answer of one channel; return whether it is the last one for its flush."""
        self._by_marker[marker] -= 1
        is_last = self._by_marker[marker] % self._channels == 0
        if not self._by_marker[marker]:
            del self._by_marker[marker]
        return is_last

    def clear(self) -> None:
        """Forget all pending flushes, which will not be answered."""
        self._by_marker.clear()

"""Messages on their way to a client that may read slowly: bounded, and what matters least is dropped first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from tympan.errors import SlowReaderError


class Outbox:
    """Holds up to `capacity` messages; from half of that on, droppable ones are not taken."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: deque[str | bytes] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def put(self, messages: Iterable[str | bytes], droppable: bool = False) -> None:
        """Raises `SlowReaderError` when messages that matter find no room."""
        for message in messages:
            if droppable and len(self._messages) >= self._capacity // 2:
                self.dropped += 1
                continue
            if len(self._messages) >= self._capacity:
                raise SlowReaderError(f"{self._capacity} messages were not read; reconnect and read faster")
            self._messages.append(message)
        self._arrived.set()

    def close(self, last_words: Iterable[str | bytes]) -> None:
        """Nothing more comes after these; they always find room."""
        self._messages.extend(last_words)
        self._closed = True
        self._arrived.set()

    async def get(self) -> str | bytes | None:
        """The next message, or `None` when the last one is out."""
        while not self._messages:
            if self._closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()

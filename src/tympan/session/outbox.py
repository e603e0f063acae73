"""Messages on their way to a client that may read slowly: bounded, and what matters least is dropped first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tympan.errors import SlowReaderError

Message = str | bytes


class Outbox:
    """Holds up to `capacity` messages; from half of that on, droppable ones are not taken."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: deque[Message] = deque()
        self.dropped = 0

    def put(self, message: Message, droppable: bool = False) -> None:
        """Raises `SlowReaderError` when a message that matters finds no room."""
        if droppable and len(self._messages) >= self._capacity // 2:
            self.dropped += 1
            return
        if len(self._messages) >= self._capacity:
            raise SlowReaderError(f"{self._capacity} messages were not read; reconnect and read faster")
        self._messages.append(message)

    def put_last(self, messages: Iterable[Message]) -> None:
        """Last words, which always find room."""
        self._messages.extend(messages)

    def take(self) -> Message | None:
        """The next message, or `None` when there is none."""
        return self._messages.popleft() if self._messages else None

"""Messages on their way to a client that may read slowly: bounded, and what matters least is dropped first."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tympan.errors import ResumeError, SlowReaderError

Message = str | bytes

MOST_CHARACTERS = 4 << 20  # a client may have long things shown to it, again and again


class Outbox:
    """Holds up to `capacity` messages; from half of that on, droppable ones are not taken."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: deque[Message] = deque()
        self._characters = 0
        self.dropped = 0

    def put(self, message: Message, droppable: bool = False) -> None:
        """Raises `SlowReaderError` when a message that matters finds no room."""
        if droppable and len(self._messages) >= self._capacity // 2:
            self.dropped += 1
            return
        if len(self._messages) >= self._capacity or self._characters + len(message) > MOST_CHARACTERS:
            raise SlowReaderError(f"{len(self._messages)} messages were not read; reconnect and read faster")
        self._characters += len(message)
        self._messages.append(message)

    def put_last(self, messages: Sequence[Message]) -> None:
        """Last words, which always find room."""
        for message in messages:
            self._characters += len(message)
            self._messages.append(message)

    def take(self) -> Message | None:
        """The next message, or `None` when there is none."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._characters -= len(message)
        return message


class ResumableOutbox(Outbox):
    """Also keeps the last `capacity` messages that mattered, taken or not, for a client that lost its connection."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._kept: deque[Message] = deque(maxlen=capacity)
        self._count = 0

    def put(self, message: Message, droppable: bool = False) -> None:
        super().put(message, droppable)
        if not droppable:
            self._keep((message,))

    def put_last(self, messages: Sequence[Message]) -> None:
        super().put_last(messages)
        self._keep(messages)

    def _keep(self, messages: Sequence[Message]) -> None:
        self._kept.extend(messages)
        self._count += len(messages)

    def rewind(self, received: int) -> None:
        """Let the next message be the one after the `received` first that mattered. Droppable ones do not come again.

        Raises `ResumeError` when that one is not kept any more, or never was.
        """
        missing = self._count - received
        if not 0 <= missing <= len(self._kept):
            raise ResumeError(f"what came after {received} messages is not kept any more; open a new stream")
        while len(self._kept) > missing:
            self._kept.popleft()
        self._messages = deque(self._kept)
        self._characters = sum(map(len, self._kept))

"""Messages for a client that may read slowly: a bounded queue that drops the least important ones first."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence

from tympan.config import LimitSettings
from tympan.errors import ResumeError, SlowReaderError
from tympan.protocols.base import ResumableProtocol, ServerProtocol
from tympan.server.access.front import Front

Message = str | bytes

MOST_CHARACTERS = 4 << 20  # a client may request long messages again and again


class Outbox:
    """Holds up to `capacity` messages; droppable ones only until it is half full."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: deque[Message] = deque()
        self._characters = 0
        self.dropped = 0

    def put(self, message: Message, droppable: bool = False) -> None:
        """Add a message.

        Raises:
            SlowReaderError: There is no room for a message that cannot be dropped.
        """
        if droppable and len(self._messages) >= self._capacity // 2:
            self.dropped += 1
            return
        if len(self._messages) >= self._capacity or self._characters + len(message) > MOST_CHARACTERS:
            raise SlowReaderError(f"{len(self._messages)} messages were not read; reconnect and read faster")
        self._characters += len(message)
        self._messages.append(message)

    def put_last(self, messages: Sequence[Message]) -> None:
        """Add the last messages, for which there is always room."""
        for message in messages:
            self._characters += len(message)
            self._messages.append(message)

    def take(self) -> Message | None:
        """Return and remove the next message, or return `None`."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._characters -= len(message)
        return message


class ResumableOutbox(Outbox):
    """Also keeps the last `capacity` messages that are not droppable, for a client that resumes its stream."""

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
        """Continue after the first `received` messages; droppable ones are not repeated.

        Args:
            received: How many messages, droppable ones not counted, the client has received.

        Raises:
            ResumeError: The next message is no longer kept, or was never sent.
        """
        missing = self._count - received
        if not 0 <= missing <= len(self._kept):
            raise ResumeError(f"the messages after the first {received} are no longer kept; open a new stream")
        while len(self._kept) > missing:
            self._kept.popleft()
        self._messages = deque(self._kept)
        self._characters = sum(map(len, self._kept))


def outbox_for(protocol: ServerProtocol, limits: LimitSettings, front: Front | None = None) -> tuple[Outbox, str]:
    """Return the outbox of a stream and its token, which is empty if the stream cannot be resumed.

    Args:
        protocol: The protocol of the stream.
        limits: The server's limits.
        front: This process if there are several; the token begins with its number.
    """
    if not isinstance(protocol, ResumableProtocol) or not protocol.wants_token() or not limits.resume_seconds:
        return Outbox(limits.outbox_messages), ""
    token = secrets.token_urlsafe() if front is None else f"{front.number}.{secrets.token_urlsafe()}"
    protocol.give_token(token)
    return ResumableOutbox(limits.outbox_messages), token

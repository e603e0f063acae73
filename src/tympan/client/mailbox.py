"""Events on their way from the connection to whoever iterates over the stream."""

from __future__ import annotations

import asyncio
from collections import deque

from tympan.messages import Event


class Mailbox:
    """A queue of events that ends once: in peace, or with an error that everybody who asks is told.

    It is not bounded. A reader that lags behind costs a few hundred bytes per word; to stop reading the socket
    instead would have the server drop a stream whose owner only wanted to send everything first.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self.ended = False

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._changed.set()

    def end(self, error: BaseException | None) -> None:
        """No more events. Only the first end counts."""
        if not self.ended:
            self.ended, self._error = True, error
        self._changed.set()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def take(self) -> Event:
        """The next event. Raises `StopAsyncIteration` or the error after the last one."""
        while not self._events:
            if self.ended:
                self.raise_error()
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()

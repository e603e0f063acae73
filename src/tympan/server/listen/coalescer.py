"""Interrupt moderation for the event loop: messages that arrive within a few milliseconds are processed together.

Waking the event loop for every message of every stream costs more than the message itself: a context switch, a poll and
cold caches. After processing messages, the loop therefore sleeps for the rest of a short period. Messages that arrive
meanwhile are read at once, and other threads can run. A loop that is busy for longer than the period does not sleep.
Network cards moderate interrupts in the same way (Mogul and Ramakrishnan 1997).

All sockets are read before the first message is processed, so that the code and data of each stage stay in the cache.
"""

from __future__ import annotations

import asyncio
import time

from tympan.protocols.base import WireMessage
from tympan.server.transport import TransportListener

PERIOD_SECONDS = 0.005  # the longest delay that this adds to a message; a frame of audio lasts 16 times as long


class MessageCoalescer:
    """Collects the messages that an event loop reads, and passes them to their connections together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: list[tuple[TransportListener, WireMessage]] = []
        self._woke_at = 0.0

    def put(self, connection: TransportListener, message: WireMessage) -> None:
        """Queue a message that was read; it is processed once the sockets that are ready have been read."""
        if not self._messages:
            self._loop.call_soon(self._process)
        self._messages.append((connection, message))

    def flush(self) -> None:
        """Pass all queued messages to their connections now."""
        messages, self._messages = self._messages, []
        for connection, message in messages:
            connection.on_message(message)

    def _process(self) -> None:
        self.flush()
        remaining = self._woke_at + PERIOD_SECONDS - time.monotonic()
        if 0 < remaining < PERIOD_SECONDS:
            time.sleep(remaining)
        self._woke_at = time.monotonic()

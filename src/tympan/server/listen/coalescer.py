"""Interrupt moderation for the event loop: what comes within a few milliseconds is read at once, and heard at once.

A loop that wakes up for every message of every stream pays for the wake-up, the poll and cold caches each time, which
is more than the message itself costs. So after a message the loop sleeps for the rest of a short period: those that
came meanwhile are read in one go, other threads have the interpreter to themselves, and a loop that is busy for longer
than the period does not sleep at all. Network cards do the same with interrupts (Mogul and Ramakrishnan 1997).

First all sockets are read, and then all messages are heard: a processor that goes from one to the other and back for
each message has neither at hand.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from tympan.protocols.base import WireMessage

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 0.005  # the most that this adds to a message's way; a frame of audio is 16 times as long


class Hearer(Protocol):
    """Whom a message is for."""

    def on_message(self, message: WireMessage) -> None: ...


class MessageCoalescer:
    """One per event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: list[tuple[Hearer, WireMessage]] = []
        self._woke_at = 0.0

    def put(self, hearer: Hearer, message: WireMessage) -> None:
        """A message that was read. It is heard once all that was there has been read, and then the loop breathes."""
        if not self._messages:
            self._loop.call_soon(self._breathe)
        self._messages.append((hearer, message))

    def hear(self) -> None:
        """Let all messages be heard that were read."""
        messages, self._messages = self._messages, []
        for hearer, message in messages:
            hearer.on_message(message)

    def _breathe(self) -> None:
        self.hear()
        rest = self._woke_at + PERIOD_SECONDS - time.monotonic()
        if 0 < rest < PERIOD_SECONDS:
            time.sleep(rest)
        self._woke_at = time.monotonic()

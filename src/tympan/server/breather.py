"""Interrupt moderation for the event loop: what comes within a few milliseconds is read at once.

A loop that wakes up for every message of every stream pays for the wake-up, the poll and cold caches each time, which
is more than the message itself costs. So after a message the loop sleeps for the rest of a short period: those that
came meanwhile are read in one go, other threads have the interpreter to themselves, and a loop that is busy for longer
than the period does not sleep at all. Network cards do the same with interrupts (Mogul and Ramakrishnan 1997).
"""

from __future__ import annotations

import asyncio
import time

PERIOD_SECONDS = 0.005  # the most that this adds to a message's way; a frame of audio is 16 times as long


class Breather:
    """One per event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._called = False
        self._woke_at = 0.0

    def message_came(self) -> None:
        """Called while messages are read; the loop breathes once it has read all that were there."""
        if not self._called:
            self._called = True
            self._loop.call_soon(self._breathe)

    def _breathe(self) -> None:
        self._called = False
        rest = self._woke_at + PERIOD_SECONDS - time.monotonic()
        if 0 < rest < PERIOD_SECONDS:
            time.sleep(rest)
        self._woke_at = time.monotonic()

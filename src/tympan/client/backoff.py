"""How long a client waits before it tries again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter, so that the clients of a restarted server do not all return at once.

    The defaults wait about two minutes in total.

    Attributes:
        attempts: How many attempts in a row are made; 0 disables retries.
        first_seconds: The wait before the first attempt; it doubles for each further one.
        longest_seconds: The upper limit of a wait.
        sleep: Waits for a number of seconds.
        jitter: Returns a random number in [0, 1).
    """

    attempts: int = 8
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    def wait_seconds(self, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Return the seconds before attempt number `attempt` (from 1), at least what the server asked for."""
        doubled = min(self.first_seconds * 2.0 ** (attempt - 1), self.longest_seconds)
        return max(doubled * (0.5 + self.jitter() / 2), retry_after_seconds * (1 + self.jitter() / 4))

"""How long a client waits before it tries again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_seconds` to `longest_seconds`, each with jitter, `attempts` in a row at most.

    The defaults wait about two minutes in all. `attempts=0` never tries again. Jitter keeps the clients of a
    restarted server from coming back in step.
    """

    attempts: int = 8
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    """A number in [0, 1)."""

    def wait_seconds(self, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Seconds before attempt number `attempt` (from 1): never less than what the server asked for."""
        doubled = min(self.first_seconds * 2.0 ** (attempt - 1), self.longest_seconds)
        return max(doubled * (0.5 + self.jitter() / 2), retry_after_seconds * (1 + self.jitter() / 4))

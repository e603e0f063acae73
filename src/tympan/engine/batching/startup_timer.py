"""Durations of the stages of a start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StartupTimer:
    """Measures the stages of a start.

    Attributes:
        seconds: Duration of each stage, by name, in the order in which the stages first ran.
        current: Name or progress of the stage that is running; empty between two stages.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the duration of the block to the stage `name`."""
        start = time.perf_counter()
        self.current = name
        try:
            yield
        finally:
            self.current = ""
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def report(self, progress: object) -> None:
        """Show the progress of the stage that is running in its place, until the stage ends."""
        self.current = str(progress)

    def split(self, name: str, part: str, seconds: float) -> None:
        """Move `seconds` from the stage `name` to a new stage `part`."""
        self.seconds[name] -= seconds
        self.seconds[part] = seconds

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())

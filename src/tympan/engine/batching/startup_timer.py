"""Where the seconds of a start go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StartupTimer:
    """Seconds of the parts of a start, by name, in the order in which they were run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""
        """The part that is run now; empty between two."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """What runs inside counts as `name`; a name may come again, and adds up."""
        start = time.perf_counter()
        self.current = name
        try:
            yield
        finally:
            self.current = ""
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def split(self, name: str, part: str, seconds: float) -> None:
        """So many of the seconds of `name` were those of `part`."""
        self.seconds[name] -= seconds
        self.seconds[part] = seconds

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())

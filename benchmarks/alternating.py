"""Timing of contenders that take turns in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE_SECONDS = 0.05
"""Threads of PyTorch and of ONNX Runtime wait for more work in a loop, for some milliseconds, and slow the next
contender until they sleep."""


@contextmanager
def timed(milliseconds: list[float]) -> Iterator[None]:
    """Append the milliseconds of the block to the list, after a pause that is not counted."""
    time.sleep(PAUSE_SECONDS)
    start = time.perf_counter()
    yield
    milliseconds.append(1000 * (time.perf_counter() - start))

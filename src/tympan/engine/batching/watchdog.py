"""Detection of work that hangs."""

from __future__ import annotations

import sys
import threading
import traceback


class Watchdog:
    """Counts consecutive checks, about one a second, that find the same work unfinished.

    It counts checks and not time: a machine that slept, or a blocked event loop, must not make an engine look hung.
    """

    def __init__(self) -> None:
        self._work: object | None = None
        self._checks = 0

    def stalled_checks(self, work: object | None) -> int:
        """Return how many checks in a row, before this one, found the same `work`; None means that there is none."""
        self._checks = self._checks + 1 if work is not None and work is self._work else 0
        self._work = work
        return self._checks


def current_stack(thread: threading.Thread) -> str:
    """Return the stack of a running thread, formatted as in a traceback."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "no stack: the thread has ended"

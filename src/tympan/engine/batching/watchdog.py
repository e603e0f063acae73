"""Whether what has work goes on with it, and where it is if not."""

from __future__ import annotations

import sys
import threading
import traceback


class Watchdog:
    """Looked at about once a second. It counts looks and not time: a machine that slept, or whose event loop stood
    still, has not kept its engine from working.
    """

    def __init__(self) -> None:
        self._piece: object | None = None
        self._looks = 0

    def looks(self, piece: object | None) -> int:
        """How often in a row, before this look, the same piece of work was found undone. `None`: there is none."""
        self._looks = self._looks + 1 if piece is not None and piece is self._piece else 0
        self._piece = piece
        return self._looks


def where(thread: threading.Thread) -> str:
    """The lines that a running thread is at."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "its end"

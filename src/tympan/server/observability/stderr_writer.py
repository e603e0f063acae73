"""A log handler that never waits for the reader of stderr.

If stderr is a pipe that is not read, or a terminal that is stopped, writing to it blocks. Lines are therefore formatted
by the thread that logs and written by another one. A limited number of bytes waits; further lines are dropped, counted,
and reported once there is room.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import select
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Final

MAX_WAITING_BYTES: Final = 1024 * 1024
EXIT_SECONDS: Final = 2.0
"""The most time that the lines which still wait have at the end of the process."""


class StderrHandler(logging.Handler):
    """Writes lines to stderr in a thread of its own, which the first line starts."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0  # including the line that is being written
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record."""
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception:  # `handleError` would write to stderr
            line = f"a log line of {record.name} cannot be formatted: {record.msg!r}\n".encode(errors="replace")
        with self._changed:
            if self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
                self._dropped += 1
                return
            self._append(line)
            if self._thread is None or not self._thread.is_alive():  # a fork leaves the thread behind
                self._thread = threading.Thread(target=self._write_lines, name="stderr", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Do nothing: `logging` calls this from any thread, and a flush may wait for the reader. See `wait`."""

    def wait(self, seconds: float = EXIT_SECONDS) -> bool:
        """Wait at most `seconds` until all lines are written; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, seconds)

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting_bytes += len(line)
        self._changed.notify_all()

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
            _write(line)
            with self._changed:
                self._waiting_bytes -= len(line)
                if self._dropped and self._waiting_bytes < MAX_WAITING_BYTES // 2:
                    self._append(self._report_dropped())
                self._changed.notify_all()

    def _report_dropped(self) -> bytes:
        count, self._dropped = self._dropped, 0
        text = "%d log lines were dropped, because stderr was not read"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None)
        return self.format(record).encode(errors="backslashreplace") + b"\n"


@functools.cache
def stderr_handler() -> StderrHandler:
    """Return the handler of this process, a factory for `logging.config`.

    There is one, so that lines keep their order when logging is configured again.
    """
    handler = StderrHandler()
    atexit.register(handler.wait)
    return handler


def _write(line: bytes) -> None:
    """Write to the file descriptor: the lock of the buffered `sys.stderr` would block other threads that print."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or it was replaced
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(line.decode(errors="replace"))
        return
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # another process made the pipe non-blocking
            select.select((), (descriptor,), ())
        except OSError:  # the reader is gone
            return

"""A pseudo terminal that is read as a user reads it."""

from __future__ import annotations

import os
import pty
import re
import threading
from types import TracebackType
from typing import Self

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Context manager; its end closes this process's side.

    Attributes:
        fd: File descriptor for the program that writes.
        shown: The bytes so far.
    """

    def __init__(self) -> None:
        self.shown = b""
        self._master, self.fd = pty.openpty()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
        self._reader.join(30)
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """What was written, without colors and cursor movements, split where a line or a redrawn line begins."""
        text = _CONTROL.sub("", self.shown.decode(errors="replace")).replace("\r", "\n")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 1 << 16):
                self.shown += data
        except OSError:  # Linux reports the end of a terminal as an error
            pass

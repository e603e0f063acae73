"""A progress bar for one file, on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class FileProgress:
    """How far a file has been transcribed and how fast, on stderr; nothing where stderr is no terminal.

    `duration_seconds` is None where it is not known: the bar then only moves.
    """

    def __init__(self, name: str, duration_seconds: float | None, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=duration_seconds, done="")
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, processed_seconds: float, words: int) -> None:
        elapsed = max(time.monotonic() - self._began, 1e-3)
        done = f"{words} words · {processed_seconds / elapsed:.1f}× real time"
        self._bar.update(self._task, completed=processed_seconds, done=done)

    def show(self, line: str) -> None:
        """A line of output, now; where the bar stands on the same terminal, above it."""
        if not self._bar.disable and sys.stdout.isatty():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

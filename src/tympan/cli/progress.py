"""A progress bar for one file, on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class FileProgress:
    """Shows the progress and speed of a file on stderr, if stderr is a terminal.

    Args:
        name: The file's name.
        duration_seconds: Its length; None if unknown.
        console: Where to draw; by default stderr.
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
        """Show how much has been transcribed."""
        elapsed = max(time.monotonic() - self._began, 1e-3)
        done = f"{words} words · {processed_seconds / elapsed:.1f}× real time"
        self._bar.update(self._task, completed=processed_seconds, done=done)

    def show(self, line: str) -> None:
        """Print a line of output, above the bar if both share a terminal."""
        if not self._bar.disable and sys.stdout.isatty():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

"""Progress of downloads on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tympan.models.checkpoints.download import Transfer

LINE_SECONDS: Final = 10.0


class DownloadProgress:
    """Context manager; `report` is called with the progress of each file."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._last_line: tuple[str, str, float] = ("", "", 0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def report(self, transfer: Transfer) -> None:
        """Show the progress of a file."""
        if self._bar.disable:
            self._print(transfer)
            return
        if transfer.file not in self._tasks:
            self._tasks[transfer.file] = self._bar.add_task("", total=transfer.total)
        task, description = self._tasks[transfer.file], f"{transfer.action} {transfer.file}"
        self._bar.update(task, completed=transfer.done, total=transfer.total, description=description)

    def _print(self, transfer: Transfer) -> None:
        """Print a line for the first and the last bytes of a file and for each change of the action."""
        file, action, since = self._last_line
        now = time.monotonic()
        if (transfer.file, transfer.action) == (file, action) and now - since < LINE_SECONDS:
            return
        self._last_line = transfer.file, transfer.action, now
        print(f"tympan: {transfer}", file=sys.stderr, flush=True)

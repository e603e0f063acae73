"""Output of `listen` and `transcribe`: live words and a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import nullcontext
from types import TracebackType
from typing import IO, Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tympan.engine.base import Engine, describe_startup
from tympan.messages import Event, Partial, Segment, Turn, Warning, Word
from tympan.transcript.joining import text_after
from tympan.transcript.output import write_output

STAGE_SECONDS: Final = 0.3

LONG_LINE_CHARACTERS: Final = 200
"""Length above which a turn continues on a new line after a pause: text rewritten in place must fit the screen."""


class Screen(Protocol):
    """Shows events as they arrive."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, event: Event) -> None: ...


def open_screen(console: Console) -> Screen:
    """Return the screen for standard output."""
    return TerminalScreen(console) if console.is_terminal else PlainScreen(console.file)


class TerminalScreen:
    """Rewrites the current turn in place; words that may still change are grey."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._texts: list[str] = []  # of the words, with the spaces before them
        self._partial = ""  # with the space before it

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._break_line()
        self._live.stop()

    def show(self, event: Event) -> None:
        match event:
            case Partial():
                self._partial = text_after(bool(self._texts), event) if event.text else ""
            case Word():
                self._texts.append(text_after(bool(self._texts), event))
                self._partial = ""
            case Turn(state="started"):
                self._break_line()
            case Segment() if len(self._text()) > LONG_LINE_CHARACTERS:
                self._break_line()
            case Warning():
                self._console.print(Text(event.message, style="yellow"))
        self._draw()

    def _draw(self) -> None:
        self._live.update(Text.assemble(self._text(), (self._partial, "bright_black")), refresh=True)

    def _break_line(self) -> None:
        if self._texts:
            self._console.print(Text(self._text()))
        self._texts.clear()
        self._partial = ""
        self._draw()

    def _text(self) -> str:
        return "".join(self._texts)


class PlainScreen:
    """Writes final words as they arrive, one turn per line: for pipes and files."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._in_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._break_line()

    def show(self, event: Event) -> None:
        match event:
            case Word():
                self._write(text_after(self._in_line, event))
                self._in_line = True
            case Turn(state="started"):
                self._break_line()
            case Warning():
                print(event.message, file=sys.stderr)

    def _break_line(self) -> None:
        if self._in_line:
            self._write("\n")
        self._in_line = False

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


async def start_engine(engine: Engine) -> None:
    """Start an engine, and show its stage on stderr meanwhile if stderr is a terminal: a download may take long.

    Raises:
        ModelError: The model cannot be loaded.
    """
    console = Console(stderr=True)
    starting = asyncio.ensure_future(engine.start())
    with console.status("") if console.is_terminal else nullcontext() as status:
        while not (await asyncio.wait((starting,), timeout=STAGE_SECONDS))[0]:
            if status is not None:
                status.update(Text(describe_startup(engine)))
    await starting


class FileProgress:
    """Shows the progress and speed of a file on stderr, if stderr is a terminal.

    Args:
        name: The file's name.
        duration_seconds: Its length; None if it is unknown, or known later.
        console: Where to draw; by default stderr.
    """

    def __init__(self, name: str, duration_seconds: float | None = None, console: Console | None = None) -> None:
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

    def update(self, processed_seconds: float, words: int, duration_seconds: float | None = None) -> None:
        """Show how much has been transcribed; `duration_seconds` replaces the length unless it is None."""
        elapsed = max(time.monotonic() - self._began, 1e-3)
        done = f"{words} words · {processed_seconds / elapsed:.1f}× real time"
        self._bar.update(self._task, completed=processed_seconds, total=duration_seconds, done=done)

    def show(self, line: str) -> None:
        """Print a line of output, above the bar if both share a terminal."""
        if not self._bar.disable and sys.stdout.isatty():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            write_output(f"{line}\n")

    def warn(self, line: str) -> None:
        """Print a warning on stderr, above the bar if there is one."""
        if self._bar.disable:
            print(line, file=sys.stderr)
        else:
            self._console.print(Text(line, style="yellow"), soft_wrap=True)

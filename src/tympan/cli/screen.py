"""Live words on a terminal, or on whatever else standard output is."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import IO, Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tympan.messages import Event, Partial, Segment, Turn, Warning, Word

LONG_LINE_CHARACTERS: Final = 200
"""A turn longer than this gets a new line at its next pause: what is rewritten in place must fit the screen."""


class Screen(Protocol):
    """Shows events as they come; what stands at the end stays."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, event: Event) -> None: ...


def open_screen(console: Console) -> Screen:
    """The screen that suits standard output."""
    return TerminalScreen(console) if console.is_terminal else PlainScreen(console.file)


class TerminalScreen:
    """The current turn is rewritten in place: released words firm, what may still change in grey."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._words: list[str] = []
        self._partial = ""

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
                self._partial = event.text
            case Word():
                self._words.append(event.text)
                self._partial = ""
            case Turn(state="started"):
                self._break_line()
            case Segment() if len(self._firm()) > LONG_LINE_CHARACTERS:
                self._break_line()
            case Warning():
                self._console.print(Text(event.message, style="yellow"))
        self._draw()

    def _draw(self) -> None:
        blank = " " if self._words and self._partial else ""
        self._live.update(Text.assemble(self._firm(), blank, (self._partial, "bright_black")), refresh=True)

    def _break_line(self) -> None:
        if self._words:
            self._console.print(Text(self._firm()))
        self._words.clear()
        self._partial = ""
        self._draw()

    def _firm(self) -> str:
        return " ".join(self._words)


class PlainScreen:
    """Released words, one turn per line, each written when it comes: for pipes and files."""

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
                self._write(f" {event.text}" if self._in_line else event.text)
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

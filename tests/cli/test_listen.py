"""`tympan listen` with a sound card made of Python, against the real server."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from rich.console import Console
from support.server import LiveServer

import tympan
from tympan.cli.listen import listen
from tympan.cli.main import main
from tympan.cli.terminal import PlainScreen, TerminalScreen, open_screen
from tympan.client.microphone import BlockCallback, InputStream, Microphone
from tympan.messages import Event, Partial, Turn, Warning, Word


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with LiveServer(model="scripted") as server:
        yield server.url("")


class SoundCard:
    """Has heard 9 s of silence the moment it starts, and then nothing more."""

    samplerate = 48_000.0

    def __init__(self, device: str | int | None, block_seconds: float, callback: BlockCallback) -> None:
        self.block = np.zeros((round(block_seconds * self.samplerate), 1), np.float32)
        self.blocks = round(9.0 / block_seconds)
        self.callback = callback

    def start(self) -> None:
        for _ in range(self.blocks):
            self.callback(self.block, len(self.block), None, None)

    def close(self) -> None:
        pass


def open_card(device: str | int | None, block_seconds: float, callback: BlockCallback) -> InputStream:
    return SoundCard(device, block_seconds, callback)


class InterruptingScreen(PlainScreen):
    """Presses Ctrl-C when the first word has come."""

    def __init__(self, output: io.StringIO) -> None:
        super().__init__(output)
        self.pressed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Word) and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


async def test_ctrl_c(scripted: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    output = io.StringIO()
    await listen(scripted, None, Microphone(open_input=open_card), InterruptingScreen(output))
    lines = output.getvalue().splitlines()
    assert " ".join(lines).split() == [f"word{number}" for number in range(18)]
    assert len(lines) == 2, "a turn starts a new line"
    assert signal.getsignal(signal.SIGINT) is before
    assert "transcribing with scripted" in capsys.readouterr().err


def test_no_microphone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`import sounddevice` fails in its own ways: a module that is `None` is the plain one."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen"]) == 2
    error = capsys.readouterr().err
    assert "pip install -e '.[mic]'" in error
    assert error.count("\n") == 1


def word(text: str) -> Word:
    return Word(text, 0.0, 0.1, 1.0)


EVENTS = [
    Turn("started", 0.0, 0.1),
    Partial("helo", 0.0),
    Partial("hello", 0.0),
    word("hello"),
    Partial("word", 0.2),
    word("world"),
    Warning("clipping", "the audio is clipped"),
    Turn("ended", 1.0, 0.9),
    Turn("started", 3.0, 0.1),
    word("again"),
]


def test_pipe_gets_final_words(capsys: pytest.CaptureFixture[str]) -> None:
    output = io.StringIO()
    with open_screen(Console(file=output)) as screen:
        for event in EVENTS:
            screen.show(event)
    assert output.getvalue() == "hello world\nagain\n"
    assert capsys.readouterr().err == "the audio is clipped\n"


def test_terminal_shows_partials() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=60, color_system="standard")
    with open_screen(console) as screen:
        assert isinstance(screen, TerminalScreen)
        for event in EVENTS:
            screen.show(event)
    written = output.getvalue()
    grey = "\x1b[90m"
    assert f"{grey}helo" in written
    assert f"hello{grey} word" in written
    assert "the audio is clipped" in written
    assert [line for line in _screen_of(written) if line] == ["the audio is clipped", "hello world", "again"]


def test_terminal_joins_partials() -> None:
    output = io.StringIO()
    with open_screen(Console(file=output, force_terminal=True, width=60, color_system="standard")) as screen:
        screen.show(word("4"))
        screen.show(Partial("00", 0.2, glued=True))
    assert "4\x1b[90m00" in output.getvalue()


def _screen_of(written: str) -> list[str]:
    """What a terminal shows after these bytes: a cursor that knows the few codes that are used."""

    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif re.fullmatch(r"\x1b\[(\d*)A", token):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith(("\x1b", "\r")):
            lines[row] += token
    return [line.rstrip() for line in lines]


def test_unreachable_server() -> None:
    with LiveServer(model="scripted") as server:
        url = server.url("")

    with pytest.raises(tympan.ServerError, match="cannot reach"):
        asyncio.run(listen(url, None, Microphone(open_input=open_card), PlainScreen(io.StringIO())))

"""`tympan listen`: what the microphone hears, on the terminal. Ctrl-C ends it and still prints the last words."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from rich.console import Console

from tympan.cli.screen import Screen, open_screen
from tympan.client.microphone import Microphone
from tympan.client.stream import connect

DEFAULT_URL: Final = "ws://localhost:8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the server (default: {DEFAULT_URL})")
    parser.add_argument("--token", help="an API key of that server")
    parser.add_argument("--device", help="number or name of the microphone (`python -m sounddevice` lists them)")


def run(arguments: argparse.Namespace) -> int:
    device = int(arguments.device) if (arguments.device or "").isdecimal() else arguments.device
    asyncio.run(listen(arguments.url, arguments.token, Microphone(device), open_screen(Console())))
    return 0


async def listen(url: str, token: str | None, microphone: Microphone, screen: Screen) -> None:
    """Until Ctrl-C: then the microphone closes, and the stream ends once its last words are here."""
    async with microphone, connect(url, token=token, sample_rate=microphone.sample_rate) as stream:
        print(f"listening, with the model {stream.ready.model} at {url}; Ctrl-C ends it", file=sys.stderr)
        with _stopped_by_interrupt(microphone), screen:
            async with aclosing(stream.transcribe(microphone)) as events:
                async for event in events:
                    screen.show(event)


@contextmanager
def _stopped_by_interrupt(microphone: Microphone) -> Iterator[None]:
    """Ctrl-C stops the microphone; a second one stops the program, as it would without us."""
    loop = asyncio.get_running_loop()

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        loop.call_soon_threadsafe(microphone.stop)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

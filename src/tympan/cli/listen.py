"""`tympan listen`: transcribe the microphone on the terminal until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from rich.console import Console

from tympan.cli.options import add_token, token_from
from tympan.cli.terminal import Screen, open_screen
from tympan.client.microphone import Microphone
from tympan.client.stream import connect

DEFAULT_URL: Final = "ws://localhost:8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=DEFAULT_URL, help=f"Server (default: {DEFAULT_URL}).")
    add_token(parser)
    parser.add_argument("--device", help="Number or name of the microphone, as listed by `python -m sounddevice`.")


def run(arguments: argparse.Namespace) -> int:
    device = int(arguments.device) if (arguments.device or "").isdecimal() else arguments.device
    asyncio.run(listen(arguments.url, token_from(arguments), Microphone(device), open_screen(Console())))
    return 0


async def listen(url: str, token: str | None, microphone: Microphone, screen: Screen) -> None:
    """Transcribe until Ctrl-C, which closes the microphone; the last words are still shown."""
    async with microphone, connect(url, token=token, sample_rate=microphone.sample_rate) as stream:
        print(f"transcribing with {stream.ready.model} at {url}; press Ctrl-C to stop", file=sys.stderr)
        with _stopped_by_interrupt(microphone), screen:
            async with aclosing(stream.transcribe(microphone)) as events:
                async for event in events:
                    screen.show(event)


@contextmanager
def _stopped_by_interrupt(microphone: Microphone) -> Iterator[None]:
    """Have Ctrl-C stop the microphone, and a second one the program."""
    loop = asyncio.get_running_loop()

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        loop.call_soon_threadsafe(microphone.stop)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""`tympan listen`: transcribe the microphone, or raw samples from a pipe, on the terminal until Ctrl-C."""

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
from tympan.client.source import PipeSource
from tympan.client.stream import connect
from tympan.errors import ConfigError

DEFAULT_URL: Final = "ws://localhost:8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=DEFAULT_URL, help=f"Server (default: {DEFAULT_URL}).")
    add_token(parser)
    parser.add_argument("--device", help="Number or name of the microphone, as listed by `python -m sounddevice`.")
    parser.add_argument(
        "--input", metavar="FILE", help="Read audio from a pipe or file instead of the microphone; - is standard input."
    )
    parser.add_argument(
        "--encoding",
        help="Encoding of --input: s16le, f32le, mulaw, alaw, opus, or auto for a container (default: s16le).",
    )
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="Sample rate of --input (default: 24000).")


def run(arguments: argparse.Namespace) -> int:
    if arguments.input is None and (arguments.encoding or arguments.sample_rate):
        raise ConfigError("--encoding and --sample-rate describe --input: leave them out for the microphone")
    if arguments.input is not None and arguments.device:
        raise ConfigError("--device is a microphone, and --input a pipe: leave one of them out")
    device = int(arguments.device) if (arguments.device or "").isdecimal() else arguments.device
    source = Microphone(device) if arguments.input is None else PipeSource(arguments.input, arguments.sample_rate)
    encoding = arguments.encoding or "s16le"
    asyncio.run(listen(arguments.url, token_from(arguments), source, open_screen(Console()), encoding))
    return 0


async def listen(
    url: str, token: str | None, microphone: Microphone | PipeSource, screen: Screen, encoding: str = "s16le"
) -> None:
    """Transcribe until the end or Ctrl-C, which closes the microphone; the last words are still shown."""
    async with (
        microphone,
        connect(url, token=token, encoding=encoding, sample_rate=microphone.sample_rate) as stream,
    ):
        print(f"transcribing with {stream.ready.model} at {url}; press Ctrl-C to stop", file=sys.stderr)
        with _stopped_by_interrupt(microphone), screen:
            async with aclosing(stream.transcribe(microphone)) as events:
                async for event in events:
                    screen.show(event)


@contextmanager
def _stopped_by_interrupt(microphone: Microphone | PipeSource) -> Iterator[None]:
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

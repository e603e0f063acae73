"""Print the words that are spoken into the microphone, until Ctrl-C. Needs the extra `mic`.

python examples/microphone.py --url ws://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os

import tympan


async def listen(url: str) -> None:
    """Print each word as soon as it is final."""
    token = os.environ.get("TYMPAN_TOKEN")
    async with (
        tympan.Microphone() as microphone,
        tympan.connect(url, token=token, sample_rate=microphone.sample_rate) as stream,
    ):
        async for event in stream.transcribe(microphone):
            if isinstance(event, tympan.Word):
                print(event.text, end=" ", flush=True)
            elif isinstance(event, tympan.Turn) and event.state == "ended":
                print(flush=True)


def main() -> None:
    """Read the options and listen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="address of the server")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(listen(parser.parse_args().url))


main()

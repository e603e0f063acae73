"""Stream a file in real time over a connection that may be lost: no word is lost or repeated, and the log says when.

python examples/reconnect.py examples/sample.wav --url ws://127.0.0.1:8000

Restart the server or the network meanwhile: the client keeps the audio that has not been transcribed, and sends it
again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import AsyncIterator

import numpy as np

import tympan

RATE = 24_000
BLOCK = RATE // 10
PATIENCE = tympan.Backoff(attempts=20, first_seconds=0.2, longest_seconds=5.0)


async def in_real_time(file: str) -> AsyncIterator[np.ndarray]:
    """Yield the audio of a file at the pace at which it was spoken."""
    for block in tympan.decode_file(file, RATE):
        for start in range(0, len(block), BLOCK):
            yield block[start : start + BLOCK]
            await asyncio.sleep(BLOCK / RATE)


async def transcribe(file: str, url: str) -> None:
    """Print the words as they become final."""
    token = os.environ.get("TYMPAN_TOKEN")
    async with tympan.connect(url, token=token, backoff=PATIENCE) as stream:
        async for event in stream.transcribe(in_real_time(file)):
            if isinstance(event, tympan.Word):
                print(event.text, flush=True)


def main() -> None:
    """Read the options and transcribe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="audio or video file")
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="address of the server")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # the client logs lost connections
    asyncio.run(transcribe(options.file, options.url))


main()

"""A client that sends audio until it is killed: `python -m support.faults.client URL STREAMS sdk|simple`."""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.client import connect

from support.faults.callers import Crowd


async def speak_simply(url: str) -> None:
    """Send silence without the option to resume."""
    async with connect(f"{url}/v1/stream") as socket:
        while True:
            await socket.send(bytes(3840))
            await asyncio.sleep(0.08)


async def main(url: str, streams: int, kind: str) -> None:
    if kind == "sdk":
        await Crowd.of(streams, seconds=25).start(url)
    await asyncio.gather(*(speak_simply(url) for _ in range(streams)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))

"""A client to be killed: `python fault_client.py URL STREAMS sdk|simple` speaks until then."""

from __future__ import annotations

import asyncio
import sys

from fault_callers import Crowd
from websockets.asyncio.client import connect


async def speak_simply(url: str) -> None:
    """Without a way back."""
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

"""Check that the keepalive of a client survives a whole file sent at once through Kyutai's protocol.

    python benchmarks/kyutai_pings.py [--speed 4] [--seconds 250]

The scripted engine works `speed` times as fast as speech; the client has the defaults of `websockets`: a ping every
20 s whose pong must arrive within 20 s.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time

import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

FRAME_SAMPLES, FRAME_MS = 1_920, 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=250.0, help="of audio")
    arguments = parser.parse_args()
    step_ms = FRAME_MS / arguments.speed
    command = [sys.executable, "-m", "tympan", "serve", "--model", f"scripted:{step_ms}", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        try:
            asyncio.run(push(f"ws://127.0.0.1:{int(line.rpartition(':')[2])}", arguments.seconds))
        finally:
            server.terminate()


async def push(url: str, seconds: float) -> None:
    started = time.perf_counter()
    outcome = "the marker came"
    async with connect(f"{url}/api/asr-streaming") as socket:
        sending = asyncio.create_task(send(socket, int(seconds * 1000 / FRAME_MS)))
        try:
            while msgspec.msgpack.decode(await socket.recv(decode=False))["type"] != "Marker":
                pass
        except ConnectionClosed as error:
            outcome = f"closed: {error}"
        await asyncio.gather(sending, return_exceptions=True)
        print(f"{outcome} after {time.perf_counter() - started:.1f} s; the last pong took {socket.latency:.1f} s")


async def send(socket: ClientConnection, frames: int) -> None:
    items = np.zeros(FRAME_SAMPLES, [("tag", "u1"), ("value", ">f4")])
    items["tag"] = 0xCA
    audio = b"\x82\xa4type\xa5Audio\xa3pcm\xdc" + FRAME_SAMPLES.to_bytes(2, "big") + items.tobytes()
    for _ in range(frames):
        await socket.send(audio)
    await socket.send(msgspec.msgpack.encode({"type": "Marker", "id": 0}))


if __name__ == "__main__":
    main()

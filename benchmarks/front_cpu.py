"""Measure the CPU time of a live stream without its model, compared with a FastAPI handler that only receives.

    python benchmarks/front_cpu.py [--streams 100] [--warm-up 65] [--seconds 20] [--rounds 3]

Both servers run under uvicorn in separate processes, in turn, `rounds` times. Clients in this process send 80 ms of a
16-bit voice every 80 ms on each of `streams` connections, at random phases, and read the replies. The bare handler
ignores the audio; Tympan decodes it, checks it, passes frames to the scripted engine, and sends words. Figures are CPU
milliseconds of the server process per second of one stream. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from urllib.request import urlopen

import numpy as np
import psutil

CHUNK_SECONDS = 0.08
CHUNK_BYTES = 3840
RATE = 24_000

BARE = """
import sys, uvicorn
from fastapi import FastAPI, WebSocket
app = FastAPI()
@app.get("/ready")
async def ready(): return {}
@app.websocket("/v1/stream")
async def stream(websocket: WebSocket):
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            break
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", ws_ping_interval=None)  # clients here do not answer
"""


def masked_frame(payload: bytes) -> bytes:
    """Return a binary WebSocket message of a client (RFC 6455 §5.2); a mask of zeros does not change the payload."""
    return b"\x82" + bytes([0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload


def voice(seconds: float) -> list[bytes]:
    """Return messages of a voice-like sound, because the server reports audio that cannot be speech."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.4 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(np.sin(order * phase) / order for order in range(1, 8))
    loudness = np.clip(np.sin(2 * np.pi * 3 * time) * np.sin(2 * np.pi * 0.7 * time), 0, None)
    samples = (8000 * loudness * tone).astype("<i2").tobytes()
    return [masked_frame(samples[start : start + CHUNK_BYTES]) for start in range(0, len(samples), CHUNK_BYTES)]


async def client(port: int, until: float) -> None:
    """Send audio in real time; this uses little CPU time, because client and server share a machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in answer, answer
    chunk = random.randrange(len(VOICE))
    drain = asyncio.create_task(reader.read(-1))
    due = time.monotonic() + random.random() * CHUNK_SECONDS
    while due < until:
        await asyncio.sleep(due - time.monotonic())
        writer.write(VOICE[chunk % len(VOICE)])
        chunk += 1
        due += CHUNK_SECONDS
    drain.cancel()
    writer.close()


VOICE = voice(9.6)


async def load(port: int, process: psutil.Process, streams: int, warm_up: float, seconds: float) -> float:
    """Return the CPU milliseconds of the server per second of one stream."""
    until = time.monotonic() + warm_up + seconds
    clients = [asyncio.create_task(client(port, until)) for _ in range(streams)]
    await asyncio.sleep(warm_up)
    before, start = cpu_seconds(process), time.monotonic()
    await asyncio.sleep(seconds - 1)
    spent, took = cpu_seconds(process) - before, time.monotonic() - start
    await asyncio.gather(*clients)
    return 1000 * spent / (streams * took)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(kind: str, streams: int, warm_up: float, seconds: float) -> float:
    port = free_port()
    command = {
        "bare": [sys.executable, "-c", BARE, str(port)],
        "tympan": [sys.executable, "-m", "tympan", "serve", *SCRIPTED, "--port", str(port)],
    }[kind]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_ready(port)
            return asyncio.run(load(port, psutil.Process(server.pid), streams, warm_up, seconds))
        finally:
            server.terminate()


SCRIPTED = ("--model", "scripted:10")  # about what a GPU takes for a step of some hundred streams


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/ready"):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument(
        "--warm-up", type=float, default=65, help="the server checks streams more closely in their first minute"
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    costs: dict[str, list[float]] = {"bare": [], "tympan": []}
    for _ in range(options.rounds):
        for kind, values in costs.items():
            values.append(measure(kind, options.streams, options.warm_up, options.seconds))
            print(f"{kind:>8} {values[-1]:6.2f} ms per stream-second", flush=True)
    medians = {kind: round(statistics.median(values), 3) for kind, values in costs.items()}
    ratio = round(medians["tympan"] / medians["bare"], 2)
    print(json.dumps({"streams": options.streams, "ms_per_stream_second": medians, "ratio": ratio}))


if __name__ == "__main__":
    main()

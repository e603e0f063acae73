"""Measure the CPU time of a live stream without its model, compared with a FastAPI handler that only receives.

    python benchmarks/front_cpu.py [--streams 100] [--skip 0] [--seconds 60] [--rounds 3] [--kinds bare,tympan,fronts]

The servers run in turn, `rounds` times, in processes of their own: `bare`, the handler under uvicorn; `tympan`, Tympan
in one process; `fronts`, two front processes, an engine process and their supervisor. Clients in this process send
80 ms of a 16-bit voice every 80 ms on each of `streams` connections, at random phases, and read the replies. The bare
handler ignores the audio; Tympan decodes it, checks it, passes frames to the scripted engine, and sends words. Figures
are CPU milliseconds of all processes of the server per second of one stream, from `skip` seconds after the streams were
opened, which is part of it if that is 0; `by_age` has them for each `AGE_SECONDS`. The last line is JSON.
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

AGE_SECONDS = 10.0
SERVE = ("serve", "--model", "scripted:30")  # as long as a GPU takes for a step of some hundred streams
KINDS = {"bare": (), "tympan": SERVE, "fronts": (*SERVE, "--fronts", "2")}

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
        assert not drain.done(), "the server has closed a stream"
        writer.write(VOICE[chunk % len(VOICE)])
        chunk += 1
        due += CHUNK_SECONDS
    drain.cancel()
    writer.close()


VOICE = voice(9.6)


async def load(port: int, server: psutil.Process, streams: int, skip: float, seconds: float) -> list[float]:
    """Return the CPU milliseconds of the server per second of one stream, for each `AGE_SECONDS`."""
    start = time.monotonic()
    clients = asyncio.gather(*(client(port, start + skip + seconds) for _ in range(streams)))
    before = cpu_seconds(server)
    if skip:
        await asyncio.sleep(skip)
        start, before = time.monotonic(), cpu_seconds(server)
    ages: list[tuple[float, float]] = []
    while (left := seconds - sum(took for took, _ in ages)) > 0.5:
        await asyncio.wait((clients,), timeout=min(AGE_SECONDS, left))
        now, spent = time.monotonic(), cpu_seconds(server)
        ages.append((now - start, spent - before))
        start, before = now, spent
    await clients
    return [1000 * spent / (streams * took) for took, spent in ages]


def cpu_seconds(server: psutil.Process) -> float:
    """Return the CPU time of a server and its child processes."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def measure(kind: str, streams: int, skip: float, seconds: float) -> list[float]:
    port = free_port()
    command = [sys.executable, "-c", BARE, str(port)]
    if kind != "bare":
        capacity = ("--max-streams", str(streams), "--log-level", "warning")
        command = [sys.executable, "-m", "tympan", *KINDS[kind], *capacity, "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_ready(port)
            time.sleep(1.0)  # the fronts begin after the supervisor's answer
            return asyncio.run(load(port, psutil.Process(server.pid), streams, skip, seconds))
        finally:
            server.terminate()


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
    parser.add_argument("--skip", type=float, default=0, help="seconds of each stream that are not measured")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    costs: dict[str, list[list[float]]] = {kind: [] for kind in options.kinds.split(",")}
    for _ in range(options.rounds):
        for kind, runs in costs.items():
            ages = measure(kind, options.streams, options.skip, options.seconds)
            runs.append(ages)
            by_age = " ".join(f"{each:.2f}" for each in ages)
            print(f"{kind:>8} {statistics.fmean(ages):6.3f} ms per stream-second, by age {by_age}", flush=True)
    means = {kind: [statistics.fmean(ages) for ages in runs] for kind, runs in costs.items()}
    ratios = {
        kind: round(statistics.median(mean / bare for mean, bare in zip(values, means["bare"], strict=True)), 2)
        for kind, values in means.items()
        if "bare" in means
    }
    figures = {
        "streams": options.streams,
        "ms_per_stream_second": {kind: round(statistics.median(values), 3) for kind, values in means.items()},
        "by_age": {
            kind: [round(statistics.median(age), 3) for age in zip(*runs, strict=True)] for kind, runs in costs.items()
        },
        "ratio": ratios.get("tympan"),
        "ratios": ratios,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

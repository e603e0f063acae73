"""Open and close streams for half an hour with attackers beside them, and watch the server's memory and gauges.

    python benchmarks/churn.py [--model scripted] [--seconds 1800] [--streams 100]

Each client opens one stream after the other: of any protocol, for 2 to 20 s of audio at the pace of speech, raw or in
a container, ended in any way a client can end it. The attackers send hostile containers, messages that are costly to
decode, floods of flushes, half of a form, and connections without a request. The last line of the output is JSON.
Needs the development packages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import msgspec
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "fuzz")]

from fuzz_server import MIB, ServerProcess, frame  # noqa: E402
from loop_watch import LoopWatch  # noqa: E402
from support.hostile_containers import SOUNDS, hostile  # noqa: E402

FRAME_SECONDS = 0.08
SAMPLE_SECONDS = 5.0  # between two samples of the memory
SETTLED_SECONDS = 600.0
COSTLY = b'{"type": "KeepAlive", "x": [' + b"[]," * (MIB // 2) + b"0]}"
FORM = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26000000\r\n"


class Churn:
    """The clients and attackers of one server.

    Args:
        server: The server.
        ends: When they stop, in the event loop's time.

    Attributes:
        streams: How the clients' streams ended.
        attacks: Attacks by kind.
    """

    def __init__(self, server: ServerProcess, ends: float) -> None:
        self.streams: Counter[str] = Counter()
        self.attacks: Counter[str] = Counter()
        self._server = server
        self._ends = ends

    def _connect(self, target: str) -> connect:
        url = target if "://" in target else self._server.url(target)
        return connect(url, open_timeout=60)  # attackers and clients share the processor with the server

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() > self._ends

    async def client(self, seed: int) -> None:
        """Open one stream after the other."""
        chosen = random.Random(seed)
        while not self.is_over:
            protocol = chosen.choice((self._native, self._container, self._kyutai, self._deepgram, self._resumed))
            try:
                self.streams[await protocol(chosen)] += 1
            except (OSError, WebSocketException, TimeoutError) as error:
                self.streams[type(error).__name__] += 1
                await asyncio.sleep(1)

    async def attacker(self, seed: int) -> None:
        """Make one attack after the other."""
        chosen = random.Random(seed)
        kinds: tuple[Callable[[random.Random], Awaitable[None]], ...] = (
            self._hostile_upload,
            self._hostile_stream,
            self._costly_message,
            self._flush_flood,
            self._half_a_form,
            self._silent_sockets,
        )
        while not self.is_over:
            attack = chosen.choice(kinds)
            with suppress(OSError, WebSocketException, httpx.HTTPError, TimeoutError):
                await attack(chosen)
            self.attacks[attack.__name__.strip("_")] += 1
            await asyncio.sleep(chosen.uniform(0.1, 1))

    # --- streams ---------------------------------------------------------------------------------------------------

    async def _send_audio(self, socket: ClientConnection, chosen: random.Random, pack: Callable[[], bytes]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(chosen.randint(25, 250)):
            await socket.send(pack())
            due += FRAME_SECONDS
            await asyncio.sleep(due - loop.time())

    async def _end(self, socket: ClientConnection, chosen: random.Random, last: str | bytes) -> str:
        way = chosen.choice(("finished", "finished", "finished", "closed", "aborted"))
        if way == "finished":
            await socket.send(last)
            async with asyncio.timeout(60):
                async for _ in socket:
                    pass
        elif way == "closed":
            await socket.close()
        else:
            socket.transport.abort()
        return way

    async def _native(self, chosen: random.Random) -> str:
        async with self._connect("/v1/stream?events=all") as socket:
            await self._send_audio(socket, chosen, lambda: bytes(3840))
            return await self._end(socket, chosen, "EOS")

    async def _container(self, chosen: random.Random) -> str:
        async with self._connect("/v1/stream?encoding=auto") as socket:
            await socket.send(SOUNDS[chosen.choice(list(SOUNDS))]())
            await asyncio.sleep(chosen.uniform(0.5, 5))
            return await self._end(socket, chosen, "EOS")

    async def _kyutai(self, chosen: random.Random) -> str:
        message = msgspec.msgpack.encode({"type": "Audio", "pcm": [0.0] * 1920})
        async with self._connect("/api/asr-streaming") as socket:
            await self._send_audio(socket, chosen, lambda: message)
            await socket.send(msgspec.msgpack.encode({"type": "Marker", "id": 7}))
            async with asyncio.timeout(60):
                async for answer in socket:
                    assert isinstance(answer, bytes)
                    if msgspec.msgpack.decode(answer)["type"] == "Marker":
                        break
            return "marked"

    async def _deepgram(self, chosen: random.Random) -> str:
        async with self._connect("/v1/listen?encoding=linear16&sample_rate=24000") as socket:
            await self._send_audio(socket, chosen, lambda: bytes(3840))
            return await self._end(socket, chosen, '{"type": "CloseStream"}')

    async def _resumed(self, chosen: random.Random) -> str:
        """Lose the connection, then resume the stream, or do not."""
        async with self._connect("/v1/stream?resume=yes&events=ready") as socket:
            token = json.loads(await socket.recv())["resume"]
            await self._send_audio(socket, chosen, lambda: bytes(3840))
            socket.transport.abort()
        if chosen.random() < 0.3:
            return "left"
        url = self._server.url(f"/v1/stream?resume={token}&received=1&events=ready")
        async with self._connect(url) as socket:
            await self._send_audio(socket, chosen, lambda: bytes(3840))
            return f"resumed, {await self._end(socket, chosen, 'EOS')}"

    # --- attacks ---------------------------------------------------------------------------------------------------

    async def _hostile_upload(self, chosen: random.Random) -> None:
        _, data = hostile(chosen.getrandbits(24))
        async with httpx.AsyncClient(timeout=30) as client:
            await client.post(self._server.http("/v1/listen"), content=data)

    async def _hostile_stream(self, chosen: random.Random) -> None:
        _, data = hostile(chosen.getrandbits(24))
        async with self._connect("/v1/stream?encoding=auto") as socket, asyncio.timeout(30):
            await socket.send(data)
            await socket.send("EOS")
            async for _ in socket:
                pass

    async def _costly_message(self, chosen: random.Random) -> None:
        async with self._connect("/v1/listen?encoding=linear16&sample_rate=24000") as socket:
            await socket.send(COSTLY.decode())
            await socket.recv()

    async def _flush_flood(self, chosen: random.Random) -> None:
        flood = (frame(2, b"\0\0") + frame(1, b'{"type":"flush"}')) * 500
        with self._server.upgraded() as peer:
            peer.settimeout(0)
            with suppress(BlockingIOError):
                for _ in range(100):
                    peer.sendall(flood)
            await asyncio.sleep(3)

    async def _half_a_form(self, chosen: random.Random) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(FORM + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n")
        writer.write(b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(4 * MIB))
        await asyncio.sleep(chosen.uniform(1, 30))
        writer.close()

    async def _silent_sockets(self, chosen: random.Random) -> None:
        writers = [(await asyncio.open_connection("127.0.0.1", self._server.port))[1] for _ in range(50)]
        await asyncio.sleep(chosen.uniform(0, 12))
        for writer in writers:
            writer.close()


def memory_mib(server: ServerProcess) -> float:
    """Return the memory of the server and its child processes; shared pages count once."""
    total = 0
    for process in (server.process, *server.process.children(recursive=True)):
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return float(total / MIB)


def gauges(server: ServerProcess) -> dict[str, float]:
    """Return the gauges that must be zero while nobody is connected."""
    lines = httpx.get(server.http("/metrics"), timeout=60).text.splitlines()
    names = ("active_streams", "backlog_frames", "engine_lag_seconds", "waiting_bytes", "lost_streams")
    values = (line.rsplit(" ", 1) for line in lines if line.startswith(tuple(f"tympan_{name}" for name in names)))
    return {name: float(value) for name, value in values} | {"workers": float(server.workers)}


async def run(server: ServerProcess, options: argparse.Namespace) -> dict[str, object]:
    """Run clients and attackers, and return the figures."""
    loop = asyncio.get_running_loop()
    begun, samples = loop.time(), []
    churn = Churn(server, begun + options.seconds)
    async with asyncio.TaskGroup() as group:
        for seed in range(options.streams):
            group.create_task(churn.client(seed))
        for seed in range(options.attackers):
            group.create_task(churn.attacker(1000 + seed))
        while not churn.is_over:
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append((loop.time() - begun, await asyncio.to_thread(memory_mib, server)))
            if len(samples) % 12 == 0:
                print(f"{samples[-1][0]:.0f} s: {samples[-1][1]:.1f} MiB, {dict(churn.streams)}", flush=True)
    settled = [mib for at, mib in samples if at > min(SETTLED_SECONDS, options.seconds / 3)]
    fifth = max(1, len(settled) // 5)
    return {
        "model": options.model,
        "streams": options.streams,
        "attackers": options.attackers,
        "seconds": options.seconds,
        "ended": dict(sorted(churn.streams.items())),
        "attacks": dict(sorted(churn.attacks.items())),
        "memory_first_mib": round(statistics.median(settled[:fifth]), 1),
        "memory_last_mib": round(statistics.median(settled[-fifth:]), 1),
        "logged_errors": server.logged_errors[:500],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scripted", help="scripted or random:tiny")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of churn")
    parser.add_argument("--settle", type=float, default=25.0, help="seconds before the gauges are read")
    parser.add_argument("--streams", type=int, default=100, help="clients")
    parser.add_argument("--attackers", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(
            Path(folder) / "server.log", model=options.model, max_streams=2 * options.streams, device="cpu", dtype="f32"
        )
        try:
            with LoopWatch(server) as watch:
                figures = asyncio.run(run(server, options))
            figures |= {"longest_stall_ms": round(1000 * watch.longest), "stall_p999_ms": round(1000 * watch.p999, 1)}
            time.sleep(options.settle)
            figures |= {"gauges": gauges(server), "memory_after_mib": round(memory_mib(server), 1)}
        finally:
            server.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

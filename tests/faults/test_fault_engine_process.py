"""An engine process is lost: clients keep their connections, and each stream continues in another process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

import psutil
import pytest
from support.faults.process import ServerProcess
from websockets.asyncio.client import connect

from tympan.engine.scripted import scripted_words

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

STREAMS = int(os.environ.get("FAULT_STREAMS", "200"))
FRAMES = 110  # less than the 12 s of audio that are kept
PERIOD_SECONDS = 0.08
LOST_AT = 4.0


class Client:
    """Sends silence at the pace of speech, and keeps the words with the times of their arrival."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.words: list[str] = []
        self.times: list[float] = []
        self.code = 0

    async def run(self) -> None:
        async with connect(self._url, open_timeout=60) as socket:
            reader = asyncio.create_task(self._read(socket))
            due = asyncio.get_running_loop().time()
            for _ in range(FRAMES):
                await socket.send(bytes(3840))
                due += PERIOD_SECONDS
                await asyncio.sleep(due - asyncio.get_running_loop().time())
            await socket.send("EOS")
            await reader
            self.code = socket.close_code or 0

    async def _read(self, socket: object) -> None:
        async for message in socket:  # type: ignore[attr-defined]
            fields = json.loads(message)
            if fields["type"] == "word":
                self.words.append(fields["text"])
                self.times.append(time.monotonic())

    def pause(self, since: float) -> float:
        """Return the longest time without a word that ended after `since`."""
        return max((later - earlier for earlier, later in pairwise(self.times) if later > since), default=0.0)


def engine_processes(server: ServerProcess) -> list[psutil.Process]:
    return [child for child in server.children() if "tympan.server.engine_process" in child.cmdline()]


@pytest.mark.parametrize("fronts", [1, 2])
@pytest.mark.parametrize(
    ("fault", "number"), [("engine process killed", signal.SIGKILL), ("engine process hung", signal.SIGSTOP)]
)
async def test_engine_process_is_lost(tmp_path: Path, fault: str, number: signal.Signals, fronts: int) -> None:
    settings = {"model": "scripted", "engine_processes": 2, "engine_seconds": 2, "max_streams": 2 * STREAMS}
    settings |= {"fronts": fronts}
    ready = "serves model" if fronts == 1 else "front processes serve"
    with ServerProcess(tmp_path / "log", wait_for=ready, **settings) as server:
        health = (await asyncio.to_thread(server.get, "/health")).json()
        assert health["capacity"] == 2 * STREAMS, "the sum of both processes"
        clients = [Client(server.url()) for _ in range(STREAMS)]
        calls = asyncio.gather(*(client.run() for client in clients))
        await asyncio.sleep(LOST_AT)
        lost_at = time.monotonic()
        engine_processes(server)[0].send_signal(number)
        await calls
        text = (await asyncio.to_thread(server.get, "/metrics")).text
        moved = float(re.findall(r"^tympan_moved_streams_total (\S+)", text, re.MULTILINE)[0])
        assert abs(moved - STREAMS / 2) <= fronts - 1, "placement was even"
        assert len(engine_processes(server)) == 2
        assert "Traceback" not in server.log
    expected = [word.text for word in scripted_words(FRAMES)]
    for client in clients:
        assert client.words == expected
        assert client.code == 1000
    pauses = sorted(client.pause(lost_at) for client in clients)
    figures = {
        "fault": fault,
        "streams": STREAMS,
        "words": STREAMS * len(expected),
        "lost": 0,
        "repeated": 0,
        "errors": 0,
        "seconds_without_words": round(pauses[-1], 1),
        "pause_p50": round(quantiles(pauses, n=2)[0], 2),
        "pause_p99": round(quantiles(pauses, n=100)[-1], 2),
        "fronts": fronts,
    }
    print(f"\n{json.dumps(figures)}", flush=True)

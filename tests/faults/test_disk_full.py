"""Recordings fill a small file system while streams continue."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from support.recordings import audio_of, consented, names
from support.server import LiveServer
from support.waiting import wait_until
from websockets.asyncio.client import connect

from tympan.engine.scripted import scripted_words
from tympan.server.observability import recording

pytestmark = pytest.mark.fault

STREAMS = 8
FRAMES = 250
CHUNK_BYTES = 3840


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tympan-test", str(folder)], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip("only root may mount a small disk, and not everywhere")
    try:
        yield consented(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def speak(server: LiveServer, seed: int) -> list[str]:
    """Send twenty seconds of noise, which no codec compresses, and return the words."""
    noise = np.random.default_rng(seed).integers(-9000, 9000, FRAMES * CHUNK_BYTES // 2).astype("<i2").tobytes()
    async with connect(server.url(events="word"), max_size=None) as socket:
        for start in range(0, len(noise), CHUNK_BYTES):
            await socket.send(noise[start : start + CHUNK_BYTES])
        await socket.send("EOS")
        messages = [json.loads(message) async for message in socket]
    assert socket.close_code == 1000
    assert messages[-1]["type"] == "complete"
    return [message["text"] for message in messages if message["type"] == "word"]


async def speak_all(server: LiveServer) -> list[list[str]]:
    return list(await asyncio.gather(*(speak(server, seed) for seed in range(STREAMS))))


def report(heard: list[list[str]], expected: list[str]) -> None:
    """Print one line of JSON, as the other tests of faults do."""
    figures = {
        "fault": "disk full while recording",
        "streams": STREAMS,
        "words": STREAMS * len(expected),
        "lost": sum(len(set(expected) - set(words)) for words in heard),
        "repeated": sum(len(words) - len(set(words)) for words in heard),
        "errors": 0,
        "seconds_without_words": None,  # the audio is not sent in real time
    }
    print(f"\n{json.dumps(figures)}", flush=True)


def test_full_disk_loses_no_word(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.5)
    expected = [word.text for word in scripted_words(FRAMES)]
    with LiveServer(record_folder=str(disk), step_ms=20) as server:

        def state() -> str:
            return str(httpx.get(server.http("/health")).json()["recording"])

        heard = asyncio.run(speak_all(server))
        with capfd.disabled():
            report(heard, expected)
        assert heard == [expected] * STREAMS
        wait_until(lambda: names(disk).count("*.incomplete.flac") == STREAMS)
        assert state() == "stopped", "the disk is still full after a retry"
        assert httpx.get(server.http("/ready")).status_code == 200
        log = capfd.readouterr().err
        assert log.count("recording has stopped") == 1
        assert f"{STREAMS} recordings are incomplete" in log
        assert "streams continue: the disk is full" in log
        assert "Traceback" not in log
        lengths = [len(audio_of(file, cut=True)) for file in disk.glob("*.flac")]
        assert max(lengths) > 24_000, "the incomplete files can be played"

        assert asyncio.run(speak(server, 0)) == expected, "streams work without recordings"

        for file in disk.glob("*.incomplete.*"):
            file.unlink()
        wait_until(lambda: state() == "on")
        asyncio.run(speak(server, 0))
        wait_until(lambda: names(disk) == ["*.flac", "*.jsonl"])

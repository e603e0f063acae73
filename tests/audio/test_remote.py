"""Containers in worker processes: the same samples, and a failure there is an error of one stream."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from support.audio_decoding import RemoteClient, cut, decoded
from support.audio_encoding import encode, voice
from support.waiting import until

from tympan.audio.containers import remote
from tympan.audio.containers.launcher import launcher
from tympan.errors import AudioError
from tympan.messages import AudioFormat

AUTO = AudioFormat("auto", 24_000, 1)


def flac(seconds: float = 2.0) -> bytes:
    return encode(voice(seconds, 24_000), 24_000, "flac", "flac")


@pytest.mark.parametrize("places", [[], [1], [5_000, 20_000], list(range(0, 4_000, 250))])
async def test_same_samples_as_in_this_process(places: list[int]) -> None:
    data = flac()
    async with RemoteClient(AUTO) as client:
        blocks = [block for piece in cut(data, places) for block in await client.decode(piece)]
        blocks += await client.finish()
    np.testing.assert_array_equal(np.concatenate(blocks), decoded([data], AUTO))


async def test_error_of_the_stream() -> None:
    async with RemoteClient(AudioFormat("opus", 24_000, 1)) as client:
        with pytest.raises(AudioError, match="encoding=opus requires"):
            await client.decode(flac())


async def test_empty_stream_starts_no_process() -> None:
    async with RemoteClient(AUTO) as client:
        assert await client.finish() == []
        assert not client.decoder._started


async def test_end_within_the_header() -> None:
    async with RemoteClient(AUTO) as client:
        await client.decode(flac()[:20])
        with pytest.raises(AudioError):
            await client.finish()


async def test_killed_worker_is_an_error_of_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    data = flac()
    async with RemoteClient(AUTO) as client, RemoteClient(AUTO) as other:
        await client.decode(data[:10_000])
        before = await other.decode(data[:10_000])
        os.kill(client.decoder._pid, signal.SIGKILL)
        with pytest.raises(AudioError, match="the audio could not be decoded"):
            await client.decode(data[10_000:])
        rest = await other.decode(data[10_000:]) + await other.finish()
    np.testing.assert_array_equal(np.concatenate(before + rest), decoded([data], AUTO))
    assert "a decoder process failed" in caplog.text


async def test_worker_that_has_ended_is_noticed_when_it_is_written_to() -> None:
    async with RemoteClient(AUTO) as client:
        await client.decode(flac()[:10_000])
        worker = psutil.Process(client.decoder._pid)
        worker.kill()
        worker.wait(10)  # without the event loop, which would read the end of the connection
        with pytest.raises(AudioError, match="the audio could not be decoded"):
            await client.decode(flac()[10_000:])


async def test_hanging_worker_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REPLY_SECONDS", 0.2)
    async with RemoteClient(AUTO) as client:
        await client.decode(flac()[:10_000])
        worker = client.decoder._pid
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(AudioError, match="decoding the audio takes too long"):
            await client.decode(flac()[10_000:])
    await until(lambda: not psutil.pid_exists(worker))


async def test_close_ends_the_process() -> None:
    async with RemoteClient(AUTO) as client:
        await client.decode(flac()[:10_000])
        worker = client.decoder._pid
        assert psutil.pid_exists(worker)
    await until(lambda: not psutil.pid_exists(worker))
    client.decoder.close()


async def test_launcher_is_restarted() -> None:
    async with RemoteClient(AUTO) as client:
        await client.decode(flac()[:10_000])
        process = launcher()._process
        process.kill()
        await asyncio.to_thread(process.wait)
        async with RemoteClient(AUTO) as other:
            assert await other.decode(flac()) + await other.finish()
        assert await client.decode(flac()[10_000:]) + await client.finish()


def test_memory_of_a_worker_is_limited() -> None:
    code = """
from tympan.audio.containers.worker import MEMORY_BYTES, _limit_memory
_limit_memory()
bytearray(MEMORY_BYTES // 2)
try:
    bytearray(2 * MEMORY_BYTES)
except MemoryError:
    print("refused")
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "refused\n"
    )


async def test_bytes_without_audio_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LIVE_UNDECODED_BYTES", 1 << 20)
    async with RemoteClient(AUTO) as client:
        with pytest.raises(AudioError, match="no audio was found in the first 1 MiB"):
            for _ in range(20):
                await client.decode(b"\0\0\0\1free" + (1 << 40).to_bytes(8, "big") + bytes(100_000))

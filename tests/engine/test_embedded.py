"""The engine of the embedded recognizer: restarts of its worker processes. `test_whisper` tests its words."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.listener import Listener, frames_of, hear
from support.speech import clip, plain_words
from support.waiting import until

from tympan.config import ModelSettings
from tympan.engine.batching.restarts import MAX_RESTARTS
from tympan.engine.embedded import process
from tympan.engine.embedded.engine import EmbeddedEngine, _shares
from tympan.engine.embedded.whisper import recognizer
from tympan.engine.embedded.whisper.files import locate_model
from tympan.engine.embedded.whisper.model import Whisper
from tympan.engine.embedded.worker import make_recognizers
from tympan.errors import CapacityError
from tympan.messages import Failed


@pytest.fixture
async def engine() -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(ModelSettings(model="embedded", max_streams=2))
    await engine.start()
    yield engine
    await engine.stop()


async def first_word(engine: EmbeddedEngine) -> str:
    listener = await hear(engine, clip("hello_world").at(16_000))
    return plain_words(listener.words[0].text)[0]


async def test_dead_worker_is_restarted(engine: EmbeddedEngine) -> None:
    listener = Listener()
    stream = engine.open(listener)
    worker = next(worker for worker in engine._workers if worker.active)
    assert worker._process is not None
    worker._process.kill()
    for frame in frames_of(clip("counting").at(16_000), engine.info):
        stream.push(frame)
    await listener.wait_for(Failed)

    assert engine.active == 0
    assert engine.ready, "the other worker is running"
    await until(lambda: worker.alive)
    streams = [engine.open(Listener()) for _ in range(engine.capacity)]
    for stream in streams:
        stream.close()
    assert await first_word(engine) == "hello"


async def test_worker_start_is_retried(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "RESTART_AFTER_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        listeners = [Listener() for _ in range(engine.capacity)]
        for listener in listeners:
            engine.open(listener).push(frames_of(clip("hello_world").at(16_000), engine.info)[0])
        for worker in engine._workers:
            assert worker._process is not None
            worker._process.kill()
        for listener in listeners:
            await listener.wait_for(Failed)
        await until(lambda: caplog.text.count("did not start") >= 4)  # both workers, more than once
        assert not engine.ready
    await until(lambda: all(worker.alive for worker in engine._workers))
    assert await first_word(engine) == "hello"


async def test_worker_that_hangs_at_its_start_is_killed(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine is broken for good if no process can be started."""
    monkeypatch.setattr(process, "START_SECONDS", 0.1)
    monkeypatch.setattr(process, "RESTART_AFTER_SECONDS", 0.001)
    hung = tmp_path / "python"
    hung.write_text("#!/bin/sh\nexec sleep 1000\n")
    hung.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hung))
    started = []
    spawn = asyncio.create_subprocess_exec

    async def record(*command: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await spawn(*command, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", record)
    for worker in engine._workers:
        assert worker._process is not None
        worker._process.kill()
    await until(lambda: "did not start within" in caplog.text)
    assert engine.check(60) == ""
    await until(lambda: engine.check(60))
    assert engine.check(60) == "no recognizer process started in 5 restarts in a row"
    await engine.stop()
    assert len(started) >= 2 * MAX_RESTARTS
    # asyncio reports 255 for a process that its second `kill` has collected, which polls it first.
    assert {each.returncode for each in started} <= {-signal.SIGKILL, 255}


class NoVoice:
    def start_count(self) -> None:
        """Count nothing."""


@pytest.mark.parametrize(("carried", "slots"), [(0.3, 1), (2.9, 2), (20.0, 4)])
def test_worker_has_the_slots_that_its_core_carries(
    monkeypatch: pytest.MonkeyPatch, carried: float, slots: int
) -> None:
    folder = locate_model("embedded")
    monkeypatch.setattr(recognizer, "VoiceDetector", NoVoice)  # which starts threads of ONNX Runtime in this process
    monkeypatch.setattr(Whisper, "streams_per_core", lambda self: carried)
    assert len(make_recognizers(4, folder, measure=True)) == slots
    assert len(make_recognizers(3, folder, measure=False)) == 3


async def test_capacity_is_measured() -> None:
    engine = EmbeddedEngine(ModelSettings(model="embedded"), most_streams=3)
    await engine.start()
    assert 1 <= engine.capacity == sum(worker.slots for worker in engine._workers) <= 3
    streams = [engine.open(Listener()) for _ in range(engine.capacity)]
    with pytest.raises(CapacityError):
        engine.open(Listener())
    worker = engine._workers[0]
    assert worker._process is not None
    worker._process.kill()
    await until(lambda: not worker.alive)
    await until(lambda: worker.alive)
    assert engine.capacity == sum(worker.slots for worker in engine._workers), "not measured again"
    for stream in streams:
        stream.close()
    assert sum(worker.free for worker in engine._workers) == engine.capacity
    await engine.stop()


def test_slots_are_distributed_evenly() -> None:
    assert _shares(4, 2) == [2, 2]
    assert _shares(5, 2) == [3, 2]
    assert _shares(1, 8) == [1]

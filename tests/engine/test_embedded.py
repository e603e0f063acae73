"""The embedded engine: accuracy and latency of its words, and restarts of its worker processes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.listener import Listener, frames_of, hear
from support.speech import clip, word_error_rate
from support.waiting import until

from tympan.config import ModelSettings
from tympan.engine.batching.restarts import MAX_RESTARTS
from tympan.engine.embedded import process
from tympan.engine.embedded.engine import EmbeddedEngine, _shares
from tympan.messages import Failed, Partial, Progress, Word


@pytest.fixture
async def engine() -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(ModelSettings(max_streams=2))
    await engine.start()
    yield engine
    await engine.stop()


@pytest.mark.parametrize(("name", "worst"), [("counting", 0.0), ("hello_world", 0.0), ("quick_brown_fox", 0.25)])
async def test_word_error_rate(engine: EmbeddedEngine, name: str, worst: float) -> None:
    listener = await hear(engine, clip(name).at(16_000))
    assert word_error_rate(clip(name).text, " ".join(word.text for word in listener.words)) <= worst


async def test_words_are_released_without_pause(engine: EmbeddedEngine) -> None:
    """The clip has no pause: a word that waited for one would be released at the end."""
    listener = await hear(engine, clip("counting").at(16_000))

    clock, behind = 0.0, []
    for event in listener.events:
        if isinstance(event, Progress):
            clock = event.time
        elif isinstance(event, Word):
            behind.append(clock - event.end)
    assert behind[0] < 1.3
    assert max(behind) < 1.5


async def test_partials_are_shown_and_withdrawn(engine: EmbeddedEngine) -> None:
    listener = await hear(engine, clip("hello_world").at(16_000))

    partials = [event.text for event in listener.events if isinstance(event, Partial)]
    assert "hello world" in partials
    assert partials[-1] == ""


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
    assert (await hear(engine, clip("hello_world").at(16_000))).words[0].text == "hello"


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
    assert (await hear(engine, clip("hello_world").at(16_000))).words[0].text == "hello"


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


def test_slots_are_distributed_evenly() -> None:
    assert _shares(4, 2) == [2, 2]
    assert _shares(5, 2) == [3, 2]
    assert _shares(1, 8) == [1]

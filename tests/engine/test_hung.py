"""Engines whose work hangs: detection by the watchdog, and the end or restart of what hangs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import Sequence

import httpx2 as httpx
import numpy as np
import pytest
import uvloop
from support.counting import COUNTING_INFO, CountingRunner
from support.listener import Listener, frames_of, hear
from support.server import LiveServer, PlainServer
from support.speech import clip, plain_words
from support.waiting import until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tympan.config import ModelSettings
from tympan.engine.base import EngineInfo
from tympan.engine.batching import restarts
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.engine.batching.watchdog import Watchdog
from tympan.engine.embedded.engine import EmbeddedEngine
from tympan.messages import Failed, Finished, Progress

FRAME = np.zeros(COUNTING_INFO.frame_samples, np.float32)
LONGEST_SECONDS = 3


def test_watchdog_counts_stalled_checks() -> None:
    watchdog, first, second = Watchdog(), object(), object()
    assert [watchdog.stalled_checks(work) for work in (None, first, first, first, second, None, None, second)] == [
        *(0, 0, 1, 2, 0, 0, 0, 0)
    ]


async def test_hung_thread_fails_streams(caplog: pytest.LogCaptureFixture) -> None:
    runner = CountingRunner()
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    busy, idle = Listener(), Listener()
    stream = engine.open(busy)
    engine.open(idle)
    assert [engine.check(LONGEST_SECONDS) for _ in range(9)] == [""] * 9, "without work nothing hangs"
    runner.gate.clear()
    stream.push(FRAME)
    await until(lambda: engine._busy_since is not None)
    answers = [engine.check(LONGEST_SECONDS) for _ in range(LONGEST_SECONDS + 2)]
    assert answers == ["", "", "", *["the engine has made no progress for 3 s"] * 2]
    assert not engine.ready
    for listener in (busy, idle):
        (failed,) = listener.of(Failed)
        assert "no progress" in str(failed)
    assert "self.gate.wait()" in caplog.text, "the log has the stack"
    async with asyncio.timeout(10):
        await engine.stop()
    runner.gate.set()


async def test_working_engine_does_not_hang() -> None:
    engine = BatchedEngine(CountingRunner)
    await engine.start()
    listener = Listener()
    stream = engine.open(listener)
    for count in range(1, 10):
        stream.push(FRAME)
        await listener.wait_for(Progress, count=count)
        assert engine.check(1) == ""
    await engine.stop()


@pytest.mark.parametrize("kind", [LiveServer, PlainServer], ids=["own server", "ASGI"])
def test_server_exits_on_hung_engine(kind: type[LiveServer], caplog: pytest.LogCaptureFixture) -> None:
    runner = CountingRunner()
    with kind(engine=BatchedEngine(lambda: runner), engine_seconds=1) as server:
        with connect(server.url()) as client:
            runner.gate.clear()
            client.send(bytes(3840))
            with pytest.raises(ConnectionClosed):
                while True:
                    client.recv(timeout=10)
            assert client.close_code == 1011
        if kind is LiveServer:
            server._thread.join(10)
            assert not server._thread.is_alive()
        else:
            ready = httpx.get(server.http("/ready"))
            assert (ready.status_code, ready.json()["reason"]) == (503, "the engine has made no progress for 1 s")
            with pytest.raises(InvalidStatus, match="503"):
                connect(server.url()).__enter__()
    runner.gate.set()


async def test_wait_for_restart_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """After several errors in a row, the wait is longer than the time after which work counts as hung."""
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (60.0,))
    runner, listener = CountingRunner(), Listener()
    runner.broken = RuntimeError("broken")
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    engine.open(listener).push(FRAME)
    await listener.wait_for(Failed)
    assert [engine.check(LONGEST_SECONDS) for _ in range(LONGEST_SECONDS + 2)] == [""] * (LONGEST_SECONDS + 2)
    await engine.stop()


class OutOfMemoryRunner(CountingRunner):
    def launch(self, rows: Sequence[Row]) -> StepResult:
        raise MemoryError("too much")


async def test_broken_runner_is_freed_before_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runners would not fit into the device's memory, and the log may keep the error."""
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (0.1,))
    made: list[weakref.ref[CountingRunner]] = []
    gone: list[bool] = []

    def make() -> CountingRunner:
        gc.disable()  # the runner must be freed without it
        gone.append(all(each() is None for each in made))
        runner = CountingRunner() if made else OutOfMemoryRunner()
        made.append(weakref.ref(runner))
        return runner

    engine = BatchedEngine(make)
    await engine.start()
    listener = Listener()
    engine.open(listener).push(FRAME)
    await listener.wait_for(Failed)
    await until(lambda: engine.ready)
    gc.enable()
    assert gone == [True, True]
    assert (await hear(engine, FRAME)).events[-1] == Finished()
    await engine.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("after_seconds", [0.0, 0.3])
def test_dead_or_hung_process_is_restarted(number: signal.Signals, after_seconds: float) -> None:
    """With uvloop, which the server uses; during a request and between two requests."""

    async def run() -> None:
        engine = EmbeddedEngine(ModelSettings(model="embedded", max_streams=1))
        await engine.start()
        listener = Listener()
        stream = engine.open(listener)
        stream.push(_silence(engine.info))
        await listener.wait_for(Progress)
        process = engine._workers[0]._process
        assert process is not None
        os.kill(process.pid, number)
        await asyncio.sleep(after_seconds)
        stream.push(_silence(engine.info))
        for _ in range(LONGEST_SECONDS + 2):  # the request is sent after the first check
            assert engine.check(LONGEST_SECONDS) == ""
            await asyncio.sleep(0.05)
        await listener.wait_for(Failed)
        await until(lambda: engine._workers[0].alive)
        listener = await hear(engine, clip("hello_world").at(engine.info.sample_rate))
        assert plain_words(listener.words[0].text) == ["hello"]
        await engine.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_idle_process_that_dies_is_restarted() -> None:
    engine = EmbeddedEngine(ModelSettings(model="embedded", max_streams=1))
    await engine.start()
    process = engine._workers[0]._process
    assert process is not None
    process.kill()
    await process.wait()
    await until(lambda: engine.ready and engine._workers[0]._process is not process)
    listener = await hear(engine, clip("hello_world").at(engine.info.sample_rate))
    assert plain_words(listener.words[0].text) == ["hello"]
    await engine.stop()


def _silence(info: EngineInfo) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return frames_of(np.zeros(info.frame_samples, np.float32), info)[0]

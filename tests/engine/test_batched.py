"""Continuous batching around a model that only counts: threads, slots, faults."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from support.counting import COUNTING_INFO, CountingRunner, counting_token
from support.listener import Listener, hear

from tympan.engine.base import StepReport
from tympan.engine.batching import engine as batched
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult, flush_frames
from tympan.errors import EngineError, ModelError
from tympan.messages import Failed, Finished, Flushed, Progress

FRAME = np.zeros(COUNTING_INFO.frame_samples, np.float32)


@pytest.fixture
def runners() -> list[CountingRunner]:
    """Every runner that the engine of this test has made; the last one runs."""
    return []


@pytest.fixture
async def engine(runners: list[CountingRunner], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchedEngine]:
    monkeypatch.setattr(batched, "RESTART_SECONDS", (0.01,))

    def load() -> CountingRunner:
        runners.append(CountingRunner())
        return runners[-1]

    engine = BatchedEngine(load)
    await engine.start()
    yield engine
    await engine.stop()


async def test_on_token_includes_flush_frames() -> None:
    traced: list[int] = []
    engine = BatchedEngine(CountingRunner, trace=lambda token, pauses: traced.append(token))
    await engine.start()
    listener = await hear(engine, np.zeros(10 * COUNTING_INFO.frame_samples, np.float32))
    await engine.stop()

    assert traced == [counting_token(frame) for frame in range(10 + flush_frames(COUNTING_INFO))]
    assert len(listener.of(Progress)) == 10


async def test_streams_are_batched(engine: BatchedEngine, runners: list[CountingRunner]) -> None:
    """While a step runs, work gathers; the next step takes one frame of every stream."""
    listeners = [Listener() for _ in range(4)]
    runners[0].gate.clear()
    for listener in listeners:
        stream = engine.open(listener)
        for _ in range(40):
            stream.push(FRAME)
        stream.finish()
    runners[0].gate.set()
    for listener in listeners:
        await listener.wait_for_end()

    assert len({tuple(map(str, listener.events)) for listener in listeners}) == 1
    assert runners[0].batches.count(4) > 20
    assert sum(runners[0].batches) == 4 * (40 + flush_frames(COUNTING_INFO))


async def test_word_times_across_flushes(engine: BatchedEngine) -> None:
    listener = Listener()
    stream = engine.open(listener)
    for marker in range(6):
        for _ in range(10):
            stream.push(FRAME)
        stream.flush(marker)
    stream.finish()
    await listener.wait_for_end()

    clock = 0.0
    for word in listener.words:
        assert clock <= word.start <= word.end <= 60 * 0.08 + 1e-9
        clock = word.end
    assert [event.marker for event in listener.events if isinstance(event, Flushed)] == list(range(6))


async def test_broken_model_is_restarted(engine: BatchedEngine, runners: list[CountingRunner]) -> None:
    listeners = [Listener() for _ in range(3)]
    streams = [engine.open(listener) for listener in listeners]
    runners[0].broken = RuntimeError("out of memory")
    streams[0].push(FRAME)
    for listener in listeners:
        await listener.wait_for_end()

    assert all(isinstance(listener.events[-1], Failed) for listener in listeners)
    assert engine.active == 0
    assert not engine.ready
    with pytest.raises(EngineError):
        engine.open(Listener())
    async with asyncio.timeout(10):
        while not engine.ready:
            await asyncio.sleep(0.005)
    assert len(runners) == 2
    assert (await hear(engine, FRAME)).events[-1] == Finished()


async def test_long_run_resets_restart_delay(
    engine: BatchedEngine, runners: list[CountingRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "RESTART_SECONDS", (0.01, 3600.0))

    async def crash() -> None:
        runners[-1].broken = RuntimeError("out of memory")
        listener = Listener()
        engine.open(listener).push(FRAME)
        await listener.wait_for_end()

    async def restarted(count: int) -> None:
        while not (engine.ready and len(runners) == count):
            await asyncio.sleep(0.01)

    await crash()
    await asyncio.wait_for(restarted(2), 10)
    monkeypatch.setattr(batched, "GOOD_RUN_SECONDS", 0.0)
    await crash()
    await asyncio.wait_for(restarted(3), 10)
    monkeypatch.setattr(batched, "GOOD_RUN_SECONDS", 3600.0)
    await crash()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(restarted(4), 0.3)


async def test_close_frees_slot_within_one_step(engine: BatchedEngine, runners: list[CountingRunner]) -> None:
    stream = engine.open(Listener())
    for _ in range(1000):
        stream.push(FRAME)
    stream.close()
    await hear(engine, FRAME)
    assert sum(runners[0].batches) < 1000


async def test_failed_start_frees_memory() -> None:
    weights: list[weakref.ref[CountingRunner]] = []

    def read() -> CountingRunner:
        half_read = CountingRunner()
        weights.append(weakref.ref(half_read))
        raise MemoryError

    def load() -> CountingRunner:
        try:
            return read()
        except MemoryError:
            raise ModelError("no room") from None

    engine = BatchedEngine(load)
    with pytest.raises(ModelError) as kept:
        await engine.start()
    assert weights[0]() is None, kept.value
    await engine.stop()


async def test_start_raises_model_error() -> None:
    def load() -> CountingRunner:
        raise ModelError("no such model")

    engine = BatchedEngine(load)
    with pytest.raises(ModelError, match="no such model"):
        await engine.start()
    await engine.stop()


class BesideRunner(CountingRunner):
    """Works beside the thread: notes in which order steps are launched, waited for and read."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int]] = []

    def launch(self, rows: Sequence[Row]) -> BesideStep:  # type: ignore[override]
        self.log.append(("launch", len(self.batches)))
        return BesideStep(self, len(self.batches), super().launch(rows))


@dataclass
class BesideStep:
    runner: BesideRunner
    number: int
    result: StepResult

    def wait(self) -> None:
        self.runner.log.append(("wait", self.number))

    def read(self) -> StepResult:
        self.runner.log.append(("read", self.number))
        return self.result


async def test_step_is_read_while_next_one_runs() -> None:
    runner = BesideRunner()
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    listener = Listener()
    stream = engine.open(listener)
    runner.gate.clear()
    for _ in range(3):
        stream.push(FRAME)
    runner.gate.set()
    await listener.wait_for(Progress, count=3)  # the last one too, although no step follows
    await engine.stop()

    assert [entry for entry in runner.log if entry[0] != "wait"] == [
        ("launch", 0),
        ("launch", 1),
        ("read", 0),
        ("launch", 2),
        ("read", 1),
        ("read", 2),
    ]
    assert runner.log.index(("wait", 0)) < runner.log.index(("launch", 1)), "a batch is formed when the device is free"


async def test_asynchronous_steps_give_same_events(engine: BatchedEngine) -> None:
    beside = BatchedEngine(BesideRunner)
    await beside.start()
    audio = np.zeros(30 * COUNTING_INFO.frame_samples, np.float32)
    assert (await hear(beside, audio)).events == (await hear(engine, audio)).events
    await beside.stop()


async def test_steps_are_reported(engine: BatchedEngine, runners: list[CountingRunner]) -> None:
    reports: list[StepReport] = []
    engine.observe = reports.append
    runners[0].gate.clear()
    listener = Listener()
    stream = engine.open(listener)
    for _ in range(3):
        stream.push(FRAME)
    await asyncio.sleep(0.05)
    runners[0].gate.set()
    await listener.wait_for(Progress, count=3)

    assert [report.rows for report in reports] == [1, 1, 1]
    assert reports[-1].waiting_frames == 0
    assert reports[0].seconds >= 0.04
    assert all(report.lag_seconds >= 0.04 for report in reports)
    stream.finish()
    await listener.wait_for_end()
    assert reports[-1].lag_seconds == 0.0, "nobody waits for a silent frame"

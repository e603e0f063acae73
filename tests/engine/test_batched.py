"""The batching engine with a model that only counts: threads, slots, faults."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from support.counting import COUNTING_INFO, CountingRunner, counting_token
from support.listener import Listener, hear
from support.waiting import until

from tympan.engine.base import StepReport
from tympan.engine.batching import engine as batched
from tympan.engine.batching import restarts, step, stream
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import FINAL_FRAMES, MOST_EXTRA_FRAMES, Row
from tympan.engine.batching.step import StepResult, flush_frames
from tympan.errors import EngineError, ModelError
from tympan.messages import Failed, Finished, Flushed, Progress

FRAME = np.zeros(COUNTING_INFO.frame_samples, np.float32)
FINISH_FRAMES = flush_frames(COUNTING_INFO) + FINAL_FRAMES + MOST_EXTRA_FRAMES
"""Silent frames at the end of a stream: the model never stops, so the flush is extended as far as it may be."""


@pytest.fixture
def runners() -> list[CountingRunner]:
    """The runners that the engine of this test has made; the last one runs."""
    return []


@pytest.fixture
async def engine(runners: list[CountingRunner], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BatchedEngine]:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (0.01,))

    def load() -> CountingRunner:
        runners.append(CountingRunner())
        return runners[-1]

    engine = BatchedEngine(load)
    await engine.start()
    yield engine
    await engine.stop()


async def test_on_token_includes_flush_frames() -> None:
    tokens: list[int] = []
    engine = BatchedEngine(CountingRunner, on_token=lambda token, pauses: tokens.append(token))
    await engine.start()
    listener = await hear(engine, np.zeros(10 * COUNTING_INFO.frame_samples, np.float32))
    await engine.stop()

    assert tokens == [counting_token(frame) for frame in range(10 + FINISH_FRAMES)]
    assert len(listener.of(Progress)) == 10


async def test_streams_are_batched(engine: BatchedEngine, runners: list[CountingRunner]) -> None:
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
    assert sum(runners[0].batches) == 4 * (40 + FINISH_FRAMES)


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
    await until(lambda: engine.ready)
    assert len(runners) == 2
    assert (await hear(engine, FRAME)).events[-1] == Finished()


async def test_long_run_resets_restart_delay(
    engine: BatchedEngine, runners: list[CountingRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first delay applies after a run of more than five minutes, and the next one after a shorter run."""
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (0.01, 1000.0))

    async def restart_delay(run_seconds: float) -> float:
        """Let the model crash as if it had run for that long; return the delay of its restart."""
        engine._running_since -= run_seconds
        runners[-1].broken = RuntimeError("out of memory")
        listener = Listener()
        engine.open(listener).push(FRAME)
        await listener.wait_for_end()
        assert engine._restart_timer is not None
        return engine._restart_timer.when() - asyncio.get_running_loop().time()

    for count, run_seconds in enumerate((0.0, 301.0, 3000.0), 2):
        assert await restart_delay(run_seconds) < 1.0
        await until(lambda: engine.ready)
        assert len(runners) == count
    assert await restart_delay(299.0) > 900.0


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


class AsynchronousRunner(CountingRunner):
    """Logs in which order steps are launched, waited for and read."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int]] = []

    def launch(self, rows: Sequence[Row]) -> AsynchronousStep:  # type: ignore[override]
        self.log.append(("launch", len(self.batches)))
        return AsynchronousStep(self, len(self.batches), super().launch(rows))


@dataclass
class AsynchronousStep:
    runner: AsynchronousRunner
    number: int
    result: StepResult

    def wait(self) -> None:
        self.runner.log.append(("wait", self.number))

    def read(self) -> StepResult:
        self.runner.log.append(("read", self.number))
        return self.result


async def test_step_is_read_while_next_one_runs() -> None:
    runner = AsynchronousRunner()
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    listener = Listener()
    stream = engine.open(listener)
    runner.gate.clear()
    for _ in range(3):
        stream.push(FRAME)
    runner.gate.set()
    await listener.wait_for(Progress, count=3)  # the last one is read although no step follows
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
    other = BatchedEngine(AsynchronousRunner)
    await other.start()
    audio = np.zeros(30 * COUNTING_INFO.frame_samples, np.float32)
    assert (await hear(other, audio)).events == (await hear(engine, audio)).events
    await other.stop()


async def test_steps_are_reported(engine: BatchedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's clock advances by 1/16 s whenever it is read, so a step takes at least that long."""
    clock = SimpleNamespace(monotonic=itertools.count(0.0, 0.0625).__next__)
    for module in (batched, step, stream):
        monkeypatch.setattr(module, "time", clock)
    reports: list[StepReport] = []
    engine.observe = reports.append
    listener = Listener()
    talking = engine.open(listener)
    for _ in range(3):
        talking.push(FRAME)
    await listener.wait_for(Progress, count=3)

    assert [report.rows for report in reports] == [1, 1, 1]
    assert reports[-1].waiting_frames == 0
    assert reports[0].seconds >= 0.0625
    assert all(report.lag_seconds >= 0.0625 for report in reports)
    talking.finish()
    await listener.wait_for_end()
    assert reports[-1].lag_seconds == 0.0, "silent frames have no lag"

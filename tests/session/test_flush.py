"""A client's flush covers all audio sent: neither the resampler nor a partial frame holds any back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from support.counting import CountingRunner
from support.session import SessionClient

from tympan.audio.samples import as_float
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.messages import Audio, AudioFormat, Flush, Flushed, Samples, Vad


class AudioRunner(CountingRunner):
    """Keeps the frames of audio, without the silence of flushes, and whether each counts towards the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.audio: list[tuple[Samples, bool]] = []

    def launch(self, rows: Sequence[Row]) -> StepResult:
        self.audio += [(as_float(row.frame), not row.injected) for row in rows if row.frame is not None]
        return super().launch(rows)


@pytest.fixture
def runner() -> AudioRunner:
    return AudioRunner()


@pytest.fixture
async def engine(runner: AudioRunner) -> AsyncIterator[BatchedEngine]:
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    yield engine
    await engine.stop()


def ones(count: int) -> Audio:
    return Audio(np.ones(count, "<f4").tobytes())


async def test_partial_frame_does_not_move_times(engine: BatchedEngine, runner: AudioRunner) -> None:
    client = SessionClient(engine, AudioFormat("f32le"))
    client.session.execute(ones(1920 + 580))
    client.session.execute(Flush(1))
    await client.wait_for(Flushed(1))
    assert [(int(frame.sum()), counted) for frame, counted in runner.audio] == [(1920, True), (580, False)]
    assert runner.audio[1][0][:580].all()
    client.session.execute(Flush(2))
    client.session.execute(ones(3260))
    assert (await client.finish()).audio_seconds == 0.24
    later = runner.audio[2:]
    assert [(int(frame.sum()), counted) for frame, counted in later] == [(1340, True), (1920, True)]
    assert not later[0][0][:580].any(), "zeros replace the samples of the partial frame"
    assert [event.time for event in client.events if isinstance(event, Vad)] == pytest.approx([0.08, 0.16, 0.24])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
async def test_flush_drains_the_resampler(engine: BatchedEngine, runner: AudioRunner, rate: int) -> None:
    client = SessionClient(engine, AudioFormat("f32le", rate))
    for marker in range(1, 4):
        client.session.execute(ones(rate // 2 + 13))
        client.session.execute(Flush(marker))
        await client.wait_for(Flushed(marker))
        sent = marker * (rate // 2 + 13) / rate
        assert client.session.received_seconds == pytest.approx(sent, abs=1e-4)
        assert sum(float(frame.sum()) for frame, _ in runner.audio) == pytest.approx(24_000 * sent, abs=10 * marker)
    assert (await client.finish()).audio_seconds == pytest.approx(sent, abs=1e-4)


async def test_endpoint_flush_excludes_partial_frame(engine: BatchedEngine, runner: AudioRunner) -> None:
    client = SessionClient(engine, AudioFormat("f32le"))
    client.session.execute(ones(1920 + 580))
    client.session.flush(1)
    await client.wait_for(Flushed(1))
    assert len(runner.audio) == 1
    client.session.execute(ones(1340))
    assert (await client.finish()).audio_seconds == 0.16
    assert runner.audio[1][0].all()

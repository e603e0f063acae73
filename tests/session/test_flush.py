"""A client's flush makes the engine hear all that was sent: a resampler and a begun frame hold nothing back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from support.counting import CountingRunner

from tympan.audio.samples import as_float
from tympan.config import Config
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.messages import Audio, AudioFormat, Complete, Event, Finish, Flush, Flushed, Samples, Vad
from tympan.session.session import Session


class Ear(CountingRunner):
    """Keeps what it hears, silence of flushes left out: frames, and whether the clock counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Samples, bool]] = []

    def launch(self, rows: Sequence[Row]) -> StepResult:
        self.heard += [(as_float(row.frame), not row.injected) for row in rows if row.frame is not None]
        return super().launch(rows)


class Client:
    def __init__(self, engine: BatchedEngine, audio_format: AudioFormat) -> None:
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        self.session = Session(
            "id", engine, audio_format, Config(), self._on_event, lambda: None, lambda _: None, wants_vad=True
        )

    def _on_event(self, event: Event, channel: int) -> None:
        self.events.append(event)
        self.changed.set()

    async def finish(self) -> Complete:
        self.session.execute(Finish())
        async with asyncio.timeout(10):
            while not isinstance(self.events[-1], Complete):
                self.changed.clear()
                await self.changed.wait()
        return self.events[-1]

    async def wait_for(self, event: Event) -> None:
        async with asyncio.timeout(10):
            while event not in self.events:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def engine(ear: Ear) -> AsyncIterator[BatchedEngine]:
    engine = BatchedEngine(lambda: ear)
    await engine.start()
    yield engine
    await engine.stop()


def ones(count: int) -> Audio:
    return Audio(np.ones(count, "<f4").tobytes())


async def test_a_frame_that_has_only_begun_is_heard_once_and_moves_no_time(engine: BatchedEngine, ear: Ear) -> None:
    client = Client(engine, AudioFormat("f32le"))
    client.session.execute(ones(1920 + 580))
    client.session.execute(Flush(1))
    await client.wait_for(Flushed(1))
    assert [(int(frame.sum()), counted) for frame, counted in ear.heard] == [(1920, True), (580, False)]
    assert ear.heard[1][0][:580].all()
    client.session.execute(Flush(2))
    client.session.execute(ones(3260))
    assert (await client.finish()).audio_seconds == 0.24
    later = ear.heard[2:]
    assert [(int(frame.sum()), counted) for frame, counted in later] == [(1340, True), (1920, True)]
    assert not later[0][0][:580].any(), "in the place of what was heard before"
    assert [event.time for event in client.events if isinstance(event, Vad)] == pytest.approx([0.08, 0.16, 0.24])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
async def test_what_the_resampler_holds_back_is_heard(engine: BatchedEngine, ear: Ear, rate: int) -> None:
    client = Client(engine, AudioFormat("f32le", rate))
    for marker in range(1, 4):
        client.session.execute(ones(rate // 2 + 13))
        client.session.execute(Flush(marker))
        await client.wait_for(Flushed(marker))
        sent = marker * (rate // 2 + 13) / rate
        assert client.session.received_seconds == pytest.approx(sent, abs=1e-4)
        assert sum(float(frame.sum()) for frame, _ in ear.heard) == pytest.approx(24_000 * sent, abs=10 * marker)
    assert (await client.finish()).audio_seconds == pytest.approx(sent, abs=1e-4)


async def test_a_flush_for_an_endpoint_leaves_the_frame_that_comes_as_it_is(engine: BatchedEngine, ear: Ear) -> None:
    client = Client(engine, AudioFormat("f32le"))
    client.session.execute(ones(1920 + 580))
    client.session.flush(1)
    await client.wait_for(Flushed(1))
    assert len(ear.heard) == 1
    client.session.execute(ones(1340))
    assert (await client.finish()).audio_seconds == 0.16
    assert ear.heard[1][0].all()

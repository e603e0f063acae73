"""NaN in the model's output ends the stream that it concerns, and no other."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from support.harness import tiny_runner, tiny_settings, voice
from support.recorded import EagerDevice
from support.waiting import until

from tympan.engine.base import StepReport
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Failed, Finished, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


def runner(*, recorded: bool) -> KyutaiRunner:
    return tiny_runner(4, EagerDevice()) if recorded else load_runner(tiny_settings(max_streams=4))


async def follow(engine: BatchedEngine, spoil: KyutaiRunner | None) -> list[list[EngineEvent]]:
    """Run three streams of 20 frames; after ten, fill the second one's slot in the cache of ``spoil`` with NaN."""
    events_of: list[list[EngineEvent]] = [[], [], []]
    streams = [engine.open(events.extend) for events in events_of]
    for frame in range(20):
        if frame == 10 and spoil is not None:
            await until(lambda: all(frames_done(events) == 10 for events in events_of))
            spoil.program.ring.values[:, streams[1].slot.index] = torch.nan
        for index, stream in enumerate(streams):
            stream.push(voice(index)[frame * 1920 :][:1920].astype(np.float32))
    for stream in streams:
        stream.finish()
    await until(lambda: all(events and isinstance(events[-1], Failed | Finished) for events in events_of))
    return events_of


def frames_done(events: list[EngineEvent]) -> int:
    return sum(isinstance(event, Progress) for event in events)


def without_pauses(event: EngineEvent) -> object:
    return event.time if isinstance(event, Progress) else event


@pytest.mark.parametrize("recorded", [False, True], ids=["eager", "recorded"])
async def test_nan_ends_only_its_stream(recorded: bool, caplog: pytest.LogCaptureFixture) -> None:
    clean = BatchedEngine(lambda: runner(recorded=recorded))
    await clean.start()
    expected = await follow(clean, None)
    await clean.stop()

    loaded = runner(recorded=recorded)
    engine = BatchedEngine(lambda: loaded)
    reports: list[StepReport] = []
    engine.observe = reports.append
    await engine.start()
    with caplog.at_level(logging.ERROR):
        events_of = await follow(engine, loaded)
    (failed,) = (event for event in events_of[1] if isinstance(event, Failed))
    assert isinstance(failed.error, EngineError)
    assert events_of[1][-1] is failed
    for index in (0, 2):  # pauses differ in their last bits from batch to batch
        assert [without_pauses(event) for event in events_of[index]] == [
            without_pauses(event) for event in expected[index]
        ]
    assert sum(report.invalid for report in reports) == 1
    assert "not a number" in caplog.text
    # The slot is free, and the NaN in it do not affect the next stream.
    assert engine.active == 0
    assert engine.capacity == 4
    again = await follow(engine, None)
    assert [[type(event) for event in events] for events in again] == [
        [type(event) for event in events] for events in expected
    ]
    await engine.stop()

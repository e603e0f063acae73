"""A model whose output is not a number ends the stream that it concerns, and no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.harness import voice
from support.recorded import EagerDevice

from tympan.config import ModelSettings
from tympan.engine.base import StepReport
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.kyutai.engine import describe_engine, load_model, load_runner
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Failed, Finished, Progress
from tympan.models.checkpoints.load import open_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=4)


def runner(*, recorded: bool) -> KyutaiRunner:
    if not recorded:
        return load_runner(SETTINGS)
    checkpoint, placement = open_checkpoint(SETTINGS.model), place(SETTINGS)
    model = load_model(checkpoint, placement, SETTINGS)
    return KyutaiRunner(model, describe_engine(checkpoint, placement), 4, device=EagerDevice())


async def follow(engine: BatchedEngine, spoil: KyutaiRunner | None) -> list[list[EngineEvent]]:
    """Three streams of 20 frames; after ten, ``spoil``'s cache of the second one's slot is not a number."""
    told: list[list[EngineEvent]] = [[], [], []]
    streams = [engine.open(events.extend) for events in told]
    for frame in range(20):
        if frame == 10 and spoil is not None:
            await until(lambda: all(heard(events) == 10 for events in told))
            spoil.program.ring.values[:, streams[1].slot.index] = torch.nan
        for index, stream in enumerate(streams):
            stream.push(voice(index)[frame * 1920 :][:1920].astype(np.float32))
    for stream in streams:
        stream.finish()
    await until(lambda: all(events and isinstance(events[-1], Failed | Finished) for events in told))
    return told


def heard(events: list[EngineEvent]) -> int:
    return sum(isinstance(event, Progress) for event in events)


def without_pauses(event: EngineEvent) -> object:
    return event.time if isinstance(event, Progress) else event


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("recorded", [False, True], ids=["eager", "recorded"])
async def test_one_stream_ends_and_the_others_go_on(recorded: bool, caplog: pytest.LogCaptureFixture) -> None:
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
        told = await follow(engine, loaded)
    (failed,) = (event for event in told[1] if isinstance(event, Failed))
    assert isinstance(failed.error, EngineError)
    assert told[1][-1] is failed
    for index in (0, 2):  # pauses differ in their last bits from batch to batch
        assert [without_pauses(event) for event in told[index]] == [without_pauses(event) for event in expected[index]]
    assert sum(report.invalid for report in reports) == 1
    assert "not a number" in caplog.text
    # The slot is free, and what lies in its memory does not concern the next stream in it.
    assert engine.active == 0
    assert engine.capacity == 4
    again = await follow(engine, None)
    assert [[type(event) for event in events] for events in again] == [
        [type(event) for event in events] for events in expected
    ]
    await engine.stop()

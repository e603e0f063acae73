"""Streams of an engine whose model stalls: they get the words that they would get without the stall."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from support.counting import COUNTING_INFO, FreezingRunner
from support.listener import Listener

from tympan.engine.base import StepReport
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import Runner, StepResult
from tympan.messages import EngineEvent, Finished, Flushed, Progress, Samples, Warning, Word
from tympan.transcript.words import PADDING

SPEECH = np.full(COUNTING_INFO.frame_samples, 0.1, np.float32)
PAUSE = np.zeros(COUNTING_INFO.frame_samples, np.float32)
TALK = ([PAUSE] * 5 + [SPEECH] * 20) * 8
NEVER = -1


@dataclass
class AsynchronousStep:
    result: StepResult

    def wait(self) -> None:
        pass

    def read(self) -> StepResult:
        return self.result


class AsynchronousFreezingRunner(FreezingRunner):
    """A runner whose steps are read while the next one runs."""

    def launch(self, rows: Sequence[Row]) -> AsynchronousStep:  # type: ignore[override]
        return AsynchronousStep(super().launch(rows))


class QuietFreezingRunner(FreezingRunner):
    """Says nothing in the silence of a flush, so all flushes have the same length, whether or not it has stalled."""

    def launch(self, rows: Sequence[Row]) -> StepResult:
        result = super().launch(rows)
        tokens = [PADDING if row.injected else token for row, token in zip(rows, result.tokens, strict=True)]
        return replace(result, tokens=tokens)


class AsynchronousQuietFreezingRunner(QuietFreezingRunner):
    """A runner whose steps are read while the next one runs."""

    def launch(self, rows: Sequence[Row]) -> AsynchronousStep:  # type: ignore[override]
        return AsynchronousStep(super().launch(rows))


async def transcribe(
    runner: Runner,
    talk: Sequence[Samples | int],
    stall_seconds: float = 4.0,
    observe: list[StepReport] | None = None,
    live: bool = False,
) -> list[EngineEvent]:
    """Return the events of a stream of frames and flushes; if `live`, each frame waits for the one before."""
    engine = BatchedEngine(lambda: runner, stall_seconds=stall_seconds)
    await engine.start()
    if observe is not None:
        engine.observe = observe.append
    listener = Listener()
    stream = engine.open(listener)
    for done, item in enumerate(talk):
        if isinstance(item, int):
            stream.flush(item)
        else:
            stream.push(item)
            if live:
                await listener.wait_for(Progress, count=done + 1)
    stream.finish()
    await listener.wait_for_end()
    await engine.stop()
    return listener.events


def final_events(events: list[EngineEvent]) -> list[EngineEvent]:
    return [event for event in events if isinstance(event, Word | Flushed | Finished)]


@pytest.mark.parametrize("kind", [FreezingRunner, AsynchronousFreezingRunner])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("freezes_at", [31, 60, 101])
async def test_no_word_is_lost_or_repeated(kind: type[FreezingRunner], live: bool, freezes_at: int) -> None:
    reports: list[StepReport] = []
    expected = await transcribe(kind(NEVER), TALK)
    found = await transcribe(kind(freezes_at), TALK, observe=reports, live=live)
    assert final_events(found) == final_events(expected)
    assert len([event for event in final_events(found) if isinstance(event, Word)]) >= 45
    (warning,) = [event for event in found if isinstance(event, Warning)]
    assert warning.code == "stalled"
    assert sum(report.stalls for report in reports) == 1
    assert len([event for event in found if isinstance(event, Progress)]) == len(TALK)


async def test_words_are_lost_without_guard() -> None:
    expected = await transcribe(FreezingRunner(NEVER), TALK)
    found = await transcribe(FreezingRunner(60), TALK, stall_seconds=0)
    assert len(final_events(found)) < len(final_events(expected)) / 2
    assert not any(isinstance(event, Warning) for event in found)


@pytest.mark.parametrize("kind", [QuietFreezingRunner, AsynchronousQuietFreezingRunner])
@pytest.mark.parametrize("place", range(64, 100, 3))
async def test_flushes_around_restart_keep_order(kind: type[FreezingRunner], place: int) -> None:
    """Two flushes, anywhere around the restart of the model."""
    talk: list[Samples | int] = list(TALK)
    talk[place:place] = [1, 2]
    expected = final_events(await transcribe(kind(NEVER), talk))
    found = final_events(await transcribe(kind(60), talk))
    markers = [event for event in found if isinstance(event, Flushed | Finished)]
    assert markers == [Flushed(1), Flushed(2), Finished()]
    flushed = found.index(Flushed(1))
    received = place * 0.08
    assert all(event.end <= received + 1e-9 for event in found[:flushed] if isinstance(event, Word))
    late = [event for event in found[flushed:] if isinstance(event, Word)]
    assert all(event.start >= received - 0.5 for event in late), "the flush released all earlier words"
    assert set(map(str, found[-20:])) == set(map(str, expected[-20:])), "later words are the same"


async def test_restart_affects_no_other_stream() -> None:
    engine = BatchedEngine(lambda: FreezingRunner(60), stall_seconds=4.0)
    await engine.start()
    talking, quiet = Listener(), Listener()
    streams = [engine.open(talking), engine.open(quiet)]
    for frame in TALK:
        streams[0].push(frame)
        streams[1].push(PAUSE)
    for stream in streams:
        stream.finish()
    await asyncio.gather(talking.wait_for_end(), quiet.wait_for_end())
    await engine.stop()

    alone = await transcribe(FreezingRunner(60), [PAUSE] * len(TALK))
    assert quiet.events == alone
    assert talking.of(Warning)
    assert not quiet.of(Warning)


async def test_close_during_replay() -> None:
    runner = QuietFreezingRunner(60, slots=1)
    engine = BatchedEngine(lambda: runner, stall_seconds=4.0)
    await engine.start()
    listener = Listener()
    stream = engine.open(listener)
    for frame in TALK:
        stream.push(frame)
    await listener.wait_for(Warning)
    stream.close()
    after = Listener()
    stream = engine.open(after)
    for frame in TALK[:50]:
        stream.push(frame)
    stream.finish()
    await after.wait_for_end()
    await engine.stop()
    assert final_events(after.events) == final_events(await transcribe(QuietFreezingRunner(NEVER), TALK[:50]))


async def test_log_contains_no_words(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = await transcribe(FreezingRunner(60), TALK)
    (record,) = [record for record in caplog.records if record.name.startswith("tympan.engine")]
    assert "slot" in record.message
    texts = {event.text for event in found if isinstance(event, Word)}
    assert not texts & set(record.message.split())

"""The contract of `engine/base.py`, for every engine that runs without a GPU or a download."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest
from msgspec.structs import replace
from support.listener import Listener, frames_of, hear
from support.speech import clip

from tympan.config import Config, ModelSettings
from tympan.engine.base import Engine
from tympan.errors import CapacityError, EngineError
from tympan.messages import Failed, Finished, Flushed, Progress, Samples, Word
from tympan.server.engine_process import make_engine

ENGINES = [
    "scripted",
    "embedded",
    "random:tiny",
    "scripted in a process",
    "random:tiny in a process",
]


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    model, _, in_process = request.param.partition(" in a ")
    settings = ModelSettings(model=model, max_streams=2, engine_processes=int(bool(in_process)))
    engine = make_engine(Config(model=settings))
    await engine.start()
    yield engine
    await engine.stop()


def speech(engine: Engine) -> Samples:
    return clip("counting").at(engine.info.sample_rate)


async def test_progress_per_frame_then_finished(engine: Engine) -> None:
    listener = await hear(engine, speech(engine))

    progress = listener.of(Progress)
    assert len(progress) == len(frames_of(speech(engine), engine.info))
    assert listener.events[-1] == Finished()
    assert len(listener.of(Finished, Failed)) == 1
    assert engine.active == 0


async def test_words_are_ordered_and_inside_audio(engine: Engine) -> None:
    listener = await hear(engine, speech(engine))

    words = listener.words
    assert len(words) >= 5
    assert all(word.text == word.text.strip() != "" for word in words)
    assert all(0 <= word.start <= word.end <= listener_seconds(engine) for word in words)
    assert all(earlier.end <= later.start for earlier, later in pairwise(words))
    assert all(0 <= word.confidence <= 1 for word in words)


def listener_seconds(engine: Engine) -> float:
    return len(frames_of(speech(engine), engine.info)) * engine.info.frame_seconds + 1e-6


async def test_progress_is_clock_of_audio(engine: Engine) -> None:
    listener = await hear(engine, speech(engine))

    times = [event.time for event in listener.events if isinstance(event, Progress)]
    expected = [(index + 1) * engine.info.frame_seconds for index in range(len(times))]
    assert times == pytest.approx(expected, abs=0.001)
    assert {len(event.pauses) for event in listener.events if isinstance(event, Progress)} == {
        len(engine.info.pause_horizons)
    }


async def test_flush_releases_words_before_it(engine: Engine) -> None:
    listener = Listener()
    stream = engine.open(listener)
    frames = frames_of(speech(engine), engine.info)
    for frame in frames:
        stream.push(frame)
    stream.flush(7)
    await listener.wait_for(Flushed)

    assert listener.events[-1] == Flushed(7)
    assert len(listener.of(Progress)) == len(frames)
    assert len(listener.words) >= 5
    stream.flush(8)  # without new audio there are no new words
    await listener.wait_for(Flushed, count=2)
    assert listener.events[-2:] == [Flushed(7), Flushed(8)]
    stream.close()


async def test_flush_does_not_move_later_times(engine: Engine) -> None:
    listener = Listener()
    stream = engine.open(listener)
    silence = np.zeros(engine.info.frame_samples, np.float32)
    for marker in range(5):
        stream.push(silence)
        stream.flush(marker)
    stream.push(silence)
    stream.finish()
    await listener.wait_for_end()

    last = listener.of(Progress)[-1]
    assert isinstance(last, Progress)
    assert last.time == pytest.approx(6 * engine.info.frame_seconds, abs=0.001)


async def test_flush_with_partial_frame(engine: Engine) -> None:
    """Partial frames do not advance the clock, whatever is in them."""
    listener = Listener()
    stream = engine.open(listener)
    frames = frames_of(speech(engine), engine.info)
    stream.flush(0, frames[0])
    await listener.wait_for(Flushed)
    assert listener.of(Progress) == []
    for marker, frame in enumerate(frames, 1):
        stream.push(frame)
        stream.flush(marker, frame)
    stream.finish()
    await listener.wait_for_end()
    times = [event.time for event in listener.events if isinstance(event, Progress)]
    assert times == pytest.approx([(index + 1) * engine.info.frame_seconds for index in range(len(frames))], abs=0.001)
    assert [event.marker for event in listener.events if isinstance(event, Flushed)] == list(range(len(frames) + 1))
    assert all(word.end <= times[-1] + 1e-6 for word in listener.words)


async def test_stream_without_audio_finishes(engine: Engine) -> None:
    assert (await hear(engine, np.zeros(0, np.float32))).events == [Finished()]


async def test_close_ends_events_and_frees_slot(engine: Engine) -> None:
    listener = Listener()
    stream = engine.open(listener)
    for frame in frames_of(speech(engine), engine.info):
        stream.push(frame)
    await listener.wait_for(Progress)
    stream.close()
    stream.close()

    assert engine.active == 0
    count = len(listener.events)
    await hear(engine, speech(engine))  # long enough for events that should not come
    assert len(listener.events) == count


async def test_close_after_end(engine: Engine) -> None:
    listener = Listener()
    stream = engine.open(listener)
    stream.finish()
    await listener.wait_for_end()
    other = engine.open(Listener())
    stream.close()
    assert engine.active == 1
    other.close()


async def test_capacity_limits_open_streams(engine: Engine) -> None:
    assert engine.capacity == 2
    streams = [engine.open(Listener()) for _ in range(engine.capacity)]
    with pytest.raises(CapacityError):
        engine.open(Listener())
    assert engine.active == engine.capacity
    streams[0].close()
    engine.open(Listener()).close()
    streams[1].close()
    assert engine.active == 0


def assert_same(found: Listener, expected: Listener) -> None:
    """Compare events; probabilities may differ by rounding, which depends on the number of rows of a step."""
    assert [type(event) for event in found.events] == [type(event) for event in expected.events]
    for one, other in zip(found.events, expected.events, strict=True):
        match one, other:
            case Progress(), Progress():
                assert one.time == other.time
                assert one.pauses == pytest.approx(other.pauses, abs=1e-4)
            case Word(), Word():
                assert replace(one, confidence=0) == replace(other, confidence=0)
                assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
            case _:
                assert one == other


async def test_parallel_streams_equal_stream_alone(engine: Engine) -> None:
    alone = await hear(engine, speech(engine))
    both = await asyncio.gather(hear(engine, speech(engine)), hear(engine, speech(engine)))

    for listener in both:
        assert_same(listener, alone)


async def test_reused_slot_is_clean(engine: Engine) -> None:
    first = await hear(engine, speech(engine))
    other = clip("quick_brown_fox").at(engine.info.sample_rate)
    for _ in range(engine.capacity):
        await hear(engine, other)
    assert_same(await hear(engine, speech(engine)), first)


async def test_failing_callback_affects_no_other_stream(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def broken(events: object) -> None:
        raise ValueError("a bug in one session")

    silence = np.zeros(engine.info.frame_samples, np.float32)
    other = Listener()
    for stream in (engine.open(broken), engine.open(other)):
        for _ in range(3):
            stream.push(silence)
        stream.finish()
    await other.wait_for_end()
    assert other.events[-1] == Finished()
    assert "a bug in one session" in caplog.text


async def test_stop_ends_open_streams(engine: Engine) -> None:
    listener = Listener()
    engine.open(listener)
    await engine.stop()

    assert isinstance(listener.events[-1], Failed)
    assert not engine.ready
    with pytest.raises(EngineError):
        engine.open(Listener())

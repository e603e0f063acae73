"""A session's commands, against the scripted engine: another format, a new start, a flush out of turn."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tympan.config import Config, ModelSettings
from tympan.engine.scripted import ScriptedEngine, scripted_words
from tympan.messages import (
    Audio,
    AudioFormat,
    Complete,
    Event,
    Finish,
    Flush,
    Flushed,
    Reset,
    SetFormat,
    Warning,
    Word,
)
from tympan.session.session import Session

FRAMES = 80


class Client:
    """A session and what it said."""

    def __init__(self, engine: ScriptedEngine, audio_format: AudioFormat) -> None:
        self.events: list[Event] = []
        self.room = asyncio.Event()
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.session = Session(
            "id",
            engine,
            audio_format,
            Config(),
            lambda event, _: self.events.append(event),
            self.room.set,
            self.ended.set_result,
            wants_vad=True,
        )

    @property
    def words(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Word)]

    async def finish(self) -> Complete:
        self.session.execute(Finish())
        assert await asyncio.wait_for(self.ended, 10) is None
        assert isinstance(self.events[-1], Complete)
        return self.events[-1]


@pytest.fixture
async def engine() -> ScriptedEngine:
    engine = ScriptedEngine(ModelSettings(model="scripted", max_streams=1, step_ms=0))
    await engine.start()
    return engine


def silence(frames: int, encoding: str = "s16le") -> bytes:
    return bytes(frames * 1920 * {"s16le": 2, "f32le": 4}[encoding])


async def test_the_format_may_change_between_samples(engine: ScriptedEngine) -> None:
    client = Client(engine, AudioFormat())
    client.session.execute(Audio(silence(FRAMES // 2) + b"\0"))  # and half a sample, which is lost
    client.session.execute(SetFormat(AudioFormat("f32le")))
    client.session.execute(Audio(silence(FRAMES // 2, "f32le")))
    assert (await client.finish()).audio_seconds == pytest.approx(FRAMES * 0.08)
    assert client.words == [word.text for word in scripted_words(FRAMES)]
    await engine.stop()


async def test_the_resampler_s_rest_is_heard_before_the_format_changes(engine: ScriptedEngine) -> None:
    client = Client(engine, AudioFormat("s16le", 16_000))
    client.session.execute(Audio(bytes(2 * 16_000)))
    client.session.execute(SetFormat(AudioFormat("mulaw", 8_000)))
    client.session.execute(Audio(bytes(8_000)))
    assert (await client.finish()).audio_seconds == pytest.approx(2.0, abs=0.001)
    await engine.stop()


async def test_a_flush_before_any_audio_is_answered_although_the_format_changes(engine: ScriptedEngine) -> None:
    """OpenAI's clients clear the buffer and then say which format they send."""
    client = Client(engine, AudioFormat())
    client.session.execute(Flush(1))
    client.session.execute(SetFormat(AudioFormat("mulaw", 8_000)))
    client.session.execute(Audio(bytes(8_000)))
    assert (await client.finish()).audio_seconds == pytest.approx(1.0, abs=0.001)
    assert [event for event in client.events if isinstance(event, Flushed)] == [Flushed(1)]
    await engine.stop()


async def test_a_format_that_is_told_before_any_audio_is_what_is_looked_for(engine: ScriptedEngine) -> None:
    client = Client(engine, AudioFormat())
    client.session.execute(SetFormat(AudioFormat("f32le")))
    client.session.execute(Audio(np.full(3 * 24_000, 20_000, "<f4").tobytes()))  # integers, sent as floats
    await client.finish()
    assert "float_as_int" in [event.code for event in client.events if isinstance(event, Warning)]
    await engine.stop()


async def test_two_channels_may_be_mixed_into_one_stream(engine: ScriptedEngine) -> None:
    client = Client(engine, AudioFormat("s16le", 24_000, channels=2, mixed=True))
    client.session.execute(Audio(silence(2 * FRAMES)))
    assert (await client.finish()).audio_seconds == pytest.approx(FRAMES * 0.08)
    await engine.stop()


async def test_a_reset_forgets_everything_and_keeps_the_slot(engine: ScriptedEngine) -> None:
    client = Client(engine, AudioFormat())
    client.session.execute(Audio(silence(20)))
    client.session.execute(Flush(1))
    client.session.execute(Reset())
    client.events.clear()
    client.session.execute(Audio(silence(FRAMES)))
    client.session.execute(Flush(2))
    assert (await client.finish()).audio_seconds == pytest.approx(FRAMES * 0.08)
    assert client.words == [word.text for word in scripted_words(FRAMES)]
    assert [event for event in client.events if isinstance(event, Flushed)] == [Flushed(2)]
    await engine.stop()


async def test_a_flush_out_of_turn_does_not_wait_for_the_audio_that_waits(engine: ScriptedEngine) -> None:
    client = Client(engine, AudioFormat())
    assert not client.session.execute(Audio(silence(200)))  # more than the high-water mark
    client.session.flush(7)
    assert not client.session.execute(Audio(silence(1)))
    await asyncio.wait_for(client.room.wait(), 10)
    await client.finish()
    client.session.flush(8)  # too late to matter
    assert [event for event in client.events if isinstance(event, Flushed)] == [Flushed(7)]
    assert client.words == [word.text for word in scripted_words(201)]
    await engine.stop()

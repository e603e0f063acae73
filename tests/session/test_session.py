"""Commands of a session, on the scripted engine: format changes, resets, flushes ahead of waiting audio."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support.session import SessionClient

from tympan.config import ModelSettings
from tympan.engine.scripted import ScriptedEngine, scripted_words
from tympan.messages import (
    Audio,
    AudioFormat,
    Flush,
    Flushed,
    Reset,
    SetFormat,
    Warning,
)

FRAMES = 80


@pytest.fixture
async def engine() -> ScriptedEngine:
    engine = ScriptedEngine(ModelSettings(model="scripted:0", max_streams=1))
    await engine.start()
    return engine


def silence(frames: int, encoding: str = "s16le") -> bytes:
    return bytes(frames * 1920 * {"s16le": 2, "f32le": 4}[encoding])


async def test_format_changes_between_samples(engine: ScriptedEngine) -> None:
    client = SessionClient(engine, AudioFormat())
    client.session.execute(Audio(silence(FRAMES // 2) + b"\0"))  # and half a sample, which is discarded
    client.session.execute(SetFormat(AudioFormat("f32le")))
    client.session.execute(Audio(silence(FRAMES // 2, "f32le")))
    assert (await client.finish()).audio_seconds == pytest.approx(FRAMES * 0.08)
    assert client.words == [word.text for word in scripted_words(FRAMES)]
    await engine.stop()


async def test_resampler_is_drained_before_format_changes(engine: ScriptedEngine) -> None:
    client = SessionClient(engine, AudioFormat("s16le", 16_000))
    client.session.execute(Audio(bytes(2 * 16_000)))
    client.session.execute(SetFormat(AudioFormat("mulaw", 8_000)))
    client.session.execute(Audio(bytes(8_000)))
    assert (await client.finish()).audio_seconds == pytest.approx(2.0, abs=0.001)
    await engine.stop()


async def test_flush_survives_a_format_change(engine: ScriptedEngine) -> None:
    """OpenAI's clients clear the buffer and then declare their format."""
    client = SessionClient(engine, AudioFormat())
    client.session.execute(Flush(1))
    client.session.execute(SetFormat(AudioFormat("mulaw", 8_000)))
    client.session.execute(Audio(bytes(8_000)))
    assert (await client.finish()).audio_seconds == pytest.approx(1.0, abs=0.001)
    assert [event for event in client.events if isinstance(event, Flushed)] == [Flushed(1)]
    await engine.stop()


async def test_audio_checks_use_the_declared_format(engine: ScriptedEngine) -> None:
    client = SessionClient(engine, AudioFormat())
    client.session.execute(SetFormat(AudioFormat("f32le")))
    client.session.execute(Audio(np.full(3 * 24_000, 20_000, "<f4").tobytes()))  # integers, sent as floats
    await client.finish()
    assert "float_as_int" in [event.code for event in client.events if isinstance(event, Warning)]
    await engine.stop()


async def test_channels_are_mixed(engine: ScriptedEngine) -> None:
    client = SessionClient(engine, AudioFormat("s16le", 24_000, channels=2, mixed=True))
    client.session.execute(Audio(silence(2 * FRAMES)))
    assert (await client.finish()).audio_seconds == pytest.approx(FRAMES * 0.08)
    await engine.stop()


async def test_reset_keeps_the_slot(engine: ScriptedEngine) -> None:
    client = SessionClient(engine, AudioFormat())
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


async def test_endpoint_flush_overtakes_waiting_audio(engine: ScriptedEngine) -> None:
    client = SessionClient(engine, AudioFormat())
    assert not client.session.execute(Audio(silence(200)))  # above the limit of the backlog
    client.session.flush(7)
    assert not client.session.execute(Audio(silence(1)))
    await asyncio.wait_for(client.room.wait(), 10)
    await client.finish()
    client.session.flush(8)  # ignored: the session is over
    assert [event for event in client.events if isinstance(event, Flushed)] == [Flushed(7)]
    assert client.words == [word.text for word in scripted_words(201)]
    await engine.stop()

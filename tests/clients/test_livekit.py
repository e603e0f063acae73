"""LiveKit Agents' plugins, used as an agent uses them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from support.clients import KEY, MAX_ERROR_RATE, TEXT, chunks, pcm, speech
from support.server import LiveServer
from support.speech import clip, word_error_rate

pytest.importorskip("livekit.agents")
import aiohttp
from livekit import rtc
from livekit.agents import APIConnectOptions, stt, utils
from livekit.plugins import deepgram, gradium, openai

pytestmark = pytest.mark.clients

FIRST, SECOND = clip("one_to_five"), clip("six_to_ten")
PAUSE_SECONDS = 3.0
ONCE = APIConnectOptions(max_retry=0, timeout=10)

START, END = stt.SpeechEventType.START_OF_SPEECH, stt.SpeechEventType.END_OF_SPEECH
INTERIM, FINAL = stt.SpeechEventType.INTERIM_TRANSCRIPT, stt.SpeechEventType.FINAL_TRANSCRIPT
PREFLIGHT = stt.SpeechEventType.PREFLIGHT_TRANSCRIPT


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def push(stream: stt.SpeechStream, data: bytes, rate: int) -> None:
    for chunk in chunks(data, rate // 20 * 2):
        stream.push_frame(rtc.AudioFrame(chunk, rate, 1, len(chunk) // 2))
        await asyncio.sleep(0.05)


async def collect(stream: stt.SpeechStream, into: list[stt.SpeechEvent]) -> None:
    async for event in stream:
        into.append(event)  # noqa: PERF401  (other tasks read the list meanwhile)


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def listen(recognizer: stt.STT, rate: int, *, ends: bool) -> list[stt.SpeechEvent]:
    """Return all events for two utterances with a pause after each.

    With `ends`, the input is ended and the plugin must end by itself. Plugins that do not end the server's stream are
    closed two seconds after the second utterance, in which a repeated final transcript would appear.
    """
    events: list[stt.SpeechEvent] = []
    stream = recognizer.stream(conn_options=ONCE)
    collector = asyncio.create_task(collect(stream, events))
    await push(stream, pcm(speech(rate, pause_seconds=PAUSE_SECONDS)), rate)
    if ends:
        stream.end_input()
        async with asyncio.timeout(20):
            await collector
    else:
        await until(lambda: collector.done() or word_error_rate(TEXT, final_text(events)) <= MAX_ERROR_RATE)
        await asyncio.sleep(2)
    await stream.aclose()
    await collector
    return events


def final_text(events: list[stt.SpeechEvent]) -> str:
    return " ".join(event.alternatives[0].text for event in events if event.type == FINAL)


def check_turns(events: list[stt.SpeechEvent]) -> None:
    """Check that text comes only between a start and an end, and that nothing follows the last end."""
    speaking, turns = False, 0
    for event in events:
        if event.type in {START, END}:
            assert speaking == (event.type == END), [event.type for event in events]
            speaking = event.type == START
            turns += speaking
        elif event.type in {INTERIM, PREFLIGHT, FINAL}:
            assert speaking, [event.type for event in events]
    assert turns >= 2
    assert not speaking


def check_text(events: list[stt.SpeechEvent], caplog: pytest.LogCaptureFixture) -> None:
    """Check that both utterances are transcribed once, interim before final, without warnings or retries."""
    assert word_error_rate(TEXT, final_text(events)) <= MAX_ERROR_RATE
    kinds = [event.type for event in events]
    assert kinds.index(INTERIM) < kinds.index(FINAL)
    assert kinds.count(FINAL) >= 2
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record.getMessage() for record in loud if record.name.startswith("livekit")]


def check_word_times(events: list[stt.SpeechEvent]) -> None:
    """Check that word times are in order, within the audio and outside the pause between the utterances."""
    words = [word for event in events if event.type == FINAL for word in event.alternatives[0].words or []]
    times = [time for word in words for time in (word.start_time, word.end_time)]
    assert times
    assert times == sorted(times)
    first_ends = len(FIRST.samples) / 16_000
    second_starts = first_ends + PAUSE_SECONDS
    assert times[-1] <= second_starts + len(SECOND.samples) / 16_000 + 0.5
    assert not [time for time in times if first_ends + 0.5 < time < second_starts - 0.5]


async def test_deepgram(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = deepgram.STT(api_key=KEY, base_url=server.http("/v1/listen"), http_session=http)
    events = await listen(recognizer, 16_000, ends=True)
    check_text(events, caplog)
    check_turns(events)
    check_word_times(events)


async def test_flush(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    """No silence follows the utterances, so only the flush can release their last words."""
    recognizer = deepgram.STT(api_key=KEY, base_url=server.http("/v1/listen"), http_session=http)
    events: list[stt.SpeechEvent] = []
    stream = recognizer.stream(conn_options=ONCE)
    collector = asyncio.create_task(collect(stream, events))
    text = ""
    for utterance in (FIRST, SECOND):
        text += f" {utterance.text}"
        await push(stream, utterance.pcm(16_000), 16_000)
        stream.flush()
        await until(lambda text=text: word_error_rate(text, final_text(events)) <= MAX_ERROR_RATE, seconds=10)
    stream.end_input()  # the plugin flushes again, with no words left
    async with asyncio.timeout(20):
        await collector
    await stream.aclose()
    check_text(events, caplog)


async def test_flux(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = deepgram.STTv2(
        api_key=KEY,
        base_url=server.url("/v2/listen"),
        http_session=http,
        eager_eot_threshold=0.4,
        audio_chunk_duration_ms=80,
    )
    events = await listen(recognizer, 16_000, ends=True)
    check_text(events, caplog)
    check_turns(events)
    check_word_times(events)
    assert PREFLIGHT in [event.type for event in events]


async def test_openai_realtime(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without its own VAD the plugin reports text, but no starts and ends."""
    recognizer = openai.STT(
        api_key=KEY, base_url=server.http("/v1"), model="kyutai/stt-1b-en_fr", use_realtime=True, vad=None
    )
    async with utils.http_context.open():
        events = await listen(recognizer, 24_000, ends=False)
    check_text(events, caplog)
    await recognizer.aclose()


async def test_openai_files(server: LiveServer) -> None:
    recognizer = openai.STT(api_key=KEY, base_url=server.http("/v1"), model="whisper-1", use_realtime=False, vad=None)
    data = clip("counting").pcm(24_000)
    event = await recognizer.recognize(rtc.AudioFrame(data, 24_000, 1, len(data) // 2), conn_options=ONCE)
    assert word_error_rate(clip("counting").text, event.alternatives[0].text) <= MAX_ERROR_RATE
    await recognizer.aclose()


async def test_gradium(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = gradium.STT(api_key=KEY, model_endpoint=server.url("/api/speech/asr"), http_session=http)
    events = await listen(recognizer, 24_000, ends=False)
    check_text(events, caplog)
    check_turns(events)

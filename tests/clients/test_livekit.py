"""LiveKit Agents' plugins against our server, as an agent drives them: only the URL and the key are ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate

from clients.conftest import KEY, chunks, pcm, speech

pytest.importorskip("livekit.agents")
import aiohttp
from livekit import rtc
from livekit.agents import APIConnectOptions, stt, utils
from livekit.plugins import deepgram, gradium, openai

pytestmark = pytest.mark.clients

TEXT = f"{clip('hello_world').text} {clip('counting').text}"
ONCE = APIConnectOptions(max_retry=0, timeout=10)
FASTER = 3  # than it was spoken


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def listen(
    recognizer: stt.STT, rate: int, *, flush: bool = False, told_ends: bool = True
) -> list[stt.SpeechEvent]:
    """What the plugin tells of two utterances with a pause after each; ends when both have been told of."""
    events: list[stt.SpeechEvent] = []
    stream = recognizer.stream(conn_options=ONCE)

    async def talk() -> None:
        for chunk in chunks(pcm(speech(rate)), rate // 20 * 2):
            stream.push_frame(rtc.AudioFrame(chunk, rate, 1, len(chunk) // 2))
            await asyncio.sleep(0.05 / FASTER)
        if flush:
            stream.flush()

    talker = asyncio.create_task(talk())
    async with asyncio.timeout(40):
        async for event in stream:
            events.append(event)
            ended = kinds(events, END) if told_ends else kinds(events, FINAL)
            if len(ended) >= 2 and word_error_rate(TEXT, final_text(events)) <= 0.35:
                break
        await talker
    await stream.aclose()
    return events


def final_text(events: list[stt.SpeechEvent]) -> str:
    finals = (event for event in events if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT)
    return " ".join(event.alternatives[0].text for event in finals)


def kinds(events: list[stt.SpeechEvent], *wanted: stt.SpeechEventType) -> list[stt.SpeechEventType]:
    return [event.type for event in events if event.type in wanted]


START, END = stt.SpeechEventType.START_OF_SPEECH, stt.SpeechEventType.END_OF_SPEECH
INTERIM, FINAL = stt.SpeechEventType.INTERIM_TRANSCRIPT, stt.SpeechEventType.FINAL_TRANSCRIPT


def check(events: list[stt.SpeechEvent], caplog: pytest.LogCaptureFixture) -> None:
    """Both utterances were heard, each between its start and its end, and nothing was complained of."""
    assert word_error_rate(TEXT, final_text(events)) <= 0.35
    bounds = kinds(events, START, END)
    assert bounds[: 2 * (len(bounds) // 2)] == [START, END] * (len(bounds) // 2)
    assert bounds.count(START) >= 2
    assert not complaints(caplog)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    loud = (record for record in caplog.records if record.levelno >= logging.WARNING)
    return [record.getMessage() for record in loud if record.name.startswith("livekit")]


async def test_deepgram(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = deepgram.STT(api_key=KEY, base_url=server.http("/v1/listen"), http_session=http)
    events = await listen(recognizer, 16_000, flush=True)
    check(events, caplog)
    assert INTERIM in kinds(events, INTERIM)
    words = [word for event in events if event.type == FINAL for word in event.alternatives[0].words or []]
    starts = [word.start_time for word in words]
    assert starts
    assert starts == sorted(starts)


async def test_flux(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = deepgram.STTv2(
        api_key=KEY,
        base_url=server.url("/v2/listen"),
        http_session=http,
        eager_eot_threshold=0.4,
        audio_chunk_duration_ms=80,
    )
    events = await listen(recognizer, 16_000)
    check(events, caplog)
    assert stt.SpeechEventType.PREFLIGHT_TRANSCRIPT in [event.type for event in events]


async def test_openai_realtime(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = openai.STT(
        api_key=KEY, base_url=server.http("/v1"), model="kyutai/stt-1b-en_fr", use_realtime=True, vad=None
    )
    async with utils.http_context.open():
        events = await listen(recognizer, 24_000, told_ends=False)
    assert word_error_rate(TEXT, final_text(events)) <= 0.35
    assert kinds(events, INTERIM)
    assert not complaints(caplog)
    await recognizer.aclose()


async def test_openai_files(server: LiveServer) -> None:
    recognizer = openai.STT(api_key=KEY, base_url=server.http("/v1"), model="whisper-1", use_realtime=False, vad=None)
    data = clip("counting").pcm(24_000)
    event = await recognizer.recognize(rtc.AudioFrame(data, 24_000, 1, len(data) // 2), conn_options=ONCE)
    assert word_error_rate(clip("counting").text, event.alternatives[0].text) <= 0.35
    await recognizer.aclose()


async def test_gradium(server: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = gradium.STT(api_key=KEY, model_endpoint=server.url("/api/speech/asr"), http_session=http)
    events = await listen(recognizer, 24_000)
    check(events, caplog)

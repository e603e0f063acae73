"""Other packages for Python: OpenAI's agents, LiteLLM, LangChain, the plugin for LiveKit by La Suite, Wyoming."""

from __future__ import annotations

import asyncio
import io
import logging
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clients import CLIPS, KEY, MAX_ERROR_RATE, TEXT, chunks, pcm, speech, wav
from support.server import LiveServer
from support.speech import clip, word_error_rate
from support.waiting import until

pytest.importorskip("litellm")
import aiohttp

pytestmark = pytest.mark.clients

RATE = 24_000


def check_text(text: str) -> None:
    assert word_error_rate(TEXT, text) <= MAX_ERROR_RATE, text


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "talk.wav"
    path.write_bytes(wav(speech(RATE, pause_seconds=1.0), RATE))
    return path


# --- OpenAI's agents -------------------------------------------------------------------------------------------------


@pytest.fixture
def openai_model(server: LiveServer) -> Any:
    voice = pytest.importorskip("agents.voice")
    pytest.importorskip("agents").set_tracing_disabled(True)
    openai = pytest.importorskip("openai")
    client = openai.AsyncOpenAI(api_key=KEY, base_url=server.http("/v1"), max_retries=0)
    return voice.OpenAISTTModel("whisper-1", client)


async def test_openai_agents_turns(openai_model: Any) -> None:
    from agents.voice import StreamedAudioInput, STTModelSettings

    audio = StreamedAudioInput()
    settings = STTModelSettings(turn_detection={"type": "server_vad"})
    session = await openai_model.create_session(audio, settings, False, False)
    samples = (speech(RATE, pause_seconds=1.5) * 32767).astype(np.int16)
    for start in range(0, len(samples), RATE // 10):
        await audio.add_audio(samples[start : start + RATE // 10])
    turns: list[str] = []
    async with asyncio.timeout(40):
        async for turn in session.transcribe_turns():
            turns.append(turn)
            if len(turns) == len(CLIPS):
                break
    await session.close()
    check_text(" ".join(turns))


async def test_openai_agents_file(openai_model: Any) -> None:
    from agents.voice import AudioInput, STTModelSettings

    samples = (clip("counting").at(RATE) * 32767).astype(np.int16)
    text = await openai_model.transcribe(AudioInput(samples), STTModelSettings(), False, False)
    assert word_error_rate(clip("counting").text, text) <= MAX_ERROR_RATE


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")  # of its own packages
def test_litellm(server: LiveServer, file: Path) -> None:
    litellm = pytest.importorskip("litellm")
    openai = pytest.importorskip("openai")
    with file.open("rb") as opened:
        answer = litellm.transcription(
            model="openai/whisper-1",
            file=opened,
            api_base=server.http("/v1"),
            api_key=KEY,
            response_format="verbose_json",
            max_retries=0,
        )
    check_text(answer.text)
    with file.open("rb") as opened, pytest.raises(openai.AuthenticationError):
        litellm.transcription(
            model="openai/whisper-1", file=opened, api_base=server.http("/v1"), api_key="wrong", max_retries=0
        )


def test_langchain(server: LiveServer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser converts every file to MP3 first, for which it runs FFmpeg."""
    pydub = pytest.importorskip("pydub")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    audio = pytest.importorskip("langchain_community.document_loaders.parsers.audio")
    from langchain_core.documents.base import Blob

    monkeypatch.setattr(pydub.AudioSegment, "converter", ffmpeg.get_ffmpeg_exe())
    parser = audio.OpenAIWhisperParser(api_key=KEY, base_url=server.http("/v1"))
    (document,) = parser.lazy_parse(Blob.from_path(str(file)))
    check_text(document.page_content)


# --- LiveKit with Kyutai's protocol ----------------------------------------------------------------------------------


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="module")
def impatient() -> Iterator[LiveServer]:
    """A server whose streams end after two seconds without a message, unless their protocol allows for more."""
    with LiveServer(model="embedded", max_streams=1, idle_seconds=2.0) as server:
        yield server


async def test_lasuite_kyutai_with_muted_participant(
    impatient: LiveServer, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """LiveKit sends no frames of a muted participant, and the plugin opens no second connection."""
    kyutai = pytest.importorskip("lasuite.plugins.kyutai")
    from livekit import rtc
    from livekit.agents import APIConnectOptions

    recognizer = kyutai.STT(api_key=KEY, base_url=impatient.url("/api/asr-streaming"), http_session=http)
    stream = recognizer.stream(conn_options=APIConnectOptions(max_retry=0, timeout=10))
    words: list[str] = []

    async def collect() -> None:
        async for event in stream:
            words.append(event.alternatives[0].text)  # noqa: PERF401  (the test reads the list meanwhile)

    collector = asyncio.create_task(collect())
    for name in CLIPS:
        if name != CLIPS[0]:
            await asyncio.sleep(3)  # muted, for longer than idle_seconds
        for chunk in chunks(clip(name).pcm(RATE) + pcm(np.zeros(RATE, np.float32)), RATE // 20 * 2):
            stream.push_frame(rtc.AudioFrame(chunk, RATE, 1, len(chunk) // 2))
            await asyncio.sleep(0.02)
    await until(lambda: word_error_rate(TEXT, " ".join(words)) <= MAX_ERROR_RATE)
    await stream.aclose()
    await collector
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- Wyoming ---------------------------------------------------------------------------------------------------------


async def test_wyoming(server: LiveServer, file: Path) -> None:
    """The events that Home Assistant sends; `tests/server/test_wyoming.py` has everything else."""
    from wyoming.asr import Transcribe, Transcript, TranscriptChunk
    from wyoming.audio import wav_to_chunks
    from wyoming.client import AsyncTcpClient

    port: int = server.runner.wyoming.port  # type: ignore[attr-defined]
    async with asyncio.timeout(40), AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())
        with wave.open(io.BytesIO(file.read_bytes())) as audio:
            for event in wav_to_chunks(audio, 1024, start_event=True, stop_event=True):
                await client.write_event(event.event())
        text = ""
        while (answer := await client.read_event()) is not None and not Transcript.is_type(answer.type):
            text += TranscriptChunk.from_event(answer).text if TranscriptChunk.is_type(answer.type) else ""
        assert answer is not None
        assert Transcript.from_event(answer).text == text
    check_text(text)

"""Pipecat's services, in a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support.clients import CLIPS, KEY, MAX_ERROR_RATE, TEXT, chunks, pcm
from support.server import LiveServer
from support.speech import clip, word_error_rate

pytest.importorskip("pipecat")
import numpy as np
from loguru import logger
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.services.gradium.stt import GradiumSTTService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService
from pipecat.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.clients

RATE = 16_000
Started, Stopped = ProposedUserStartedSpeakingFrame, ProposedUserStoppedSpeakingFrame


def spoken() -> list[Frame]:
    """Return two utterances as a transport and a VAD send them: start, audio, stop, with silence around each."""
    frames: list[Frame] = [SleepFrame(0.5), *silence(2)]  # the service connects and measures the silence
    for name in CLIPS:
        frames.append(VADUserStartedSpeakingFrame())
        frames += audio(clip(name).pcm(RATE))
        frames.append(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        frames += silence(3)
    return frames


def silence(seconds: int) -> list[Frame]:
    return audio(pcm(np.zeros(seconds * RATE, np.float32)))


def audio(data: bytes) -> list[Frame]:
    frames: list[Frame] = []
    for chunk in chunks(data, RATE // 25 * 2):
        frames += [InputAudioRawFrame(chunk, RATE, 1), SleepFrame(0.04)]
    return frames


async def run(service: Any, warnings: list[str]) -> Sequence[Frame]:
    """Return the frames that the service sends down; check that there are no errors, warnings or retries."""
    params = PipelineParams(audio_in_sample_rate=RATE, enable_metrics=True)
    down, up = await run_test(service, frames_to_send=spoken(), pipeline_params=params)
    assert not [frame for frame in [*down, *up] if isinstance(frame, ErrorFrame)]
    assert not warnings
    return down


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Pipecat's warnings, which are the only sign of a new connection."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(str(message)), level="WARNING", filter="pipecat.services")
    yield messages
    logger.remove(sink)


def times_to_first_byte(frames: Sequence[Frame]) -> list[float]:
    """Return the time of each utterance in seconds, without the zeros that Pipecat reports when it starts."""
    metrics = [data for frame in frames if isinstance(frame, MetricsFrame) for data in frame.data]
    return [data.value for data in metrics if isinstance(data, TTFBMetricsData) and data.value > 0]


Make = Callable[[LiveServer], Any]


def deepgram(server: LiveServer) -> Any:
    return DeepgramSTTService(api_key=KEY, base_url=f"ws://127.0.0.1:{server.port}")


def flux(server: LiveServer) -> Any:
    return DeepgramFluxSTTService(api_key=KEY, url=server.url("/v2/listen"))


def gradium(server: LiveServer) -> Any:
    return GradiumSTTService(api_key=KEY, api_endpoint_base_url=server.url("/api/speech/asr"))


def openai_local_vad(server: LiveServer) -> Any:
    return OpenAIRealtimeSTTService(api_key=KEY, base_url=server.url("/v1/realtime"))


def openai_server_vad(server: LiveServer) -> Any:
    return OpenAIRealtimeSTTService(
        api_key=KEY, base_url=server.url("/v1/realtime"), turn_detection={"type": "server_vad"}
    )


def gradium_server_vad(server: LiveServer) -> Any:
    return GradiumSTTService(
        api_key=KEY, api_endpoint_base_url=server.url("/api/speech/asr"), enable_turn_detection=True
    )


def check_text(frames: Sequence[Frame]) -> list[TranscriptionFrame]:
    """Check that both utterances are transcribed once; return the transcriptions."""
    transcriptions = [frame for frame in frames if isinstance(frame, TranscriptionFrame)]
    text = " ".join(frame.text for frame in transcriptions)
    assert word_error_rate(TEXT, text) <= MAX_ERROR_RATE
    assert len(transcriptions) >= 2
    return transcriptions


@pytest.mark.parametrize("make", [deepgram, gradium, openai_local_vad])
async def test_vad_of_the_pipeline(server: LiveServer, make: Make, warnings: list[str]) -> None:
    frames = await run(make(server), warnings)
    check_text(frames)
    assert len(times_to_first_byte(frames)) >= 2


@pytest.mark.parametrize("make", [flux, gradium_server_vad, openai_server_vad])
async def test_turns_of_the_server(server: LiveServer, make: Make, warnings: list[str]) -> None:
    frames = await run(make(server), warnings)
    check_text(frames)
    bounds = [frame for frame in frames if isinstance(frame, (Started, Stopped))]
    assert len(bounds) >= 4
    assert [type(frame) for frame in bounds] == [Started, Stopped] * (len(bounds) // 2)


async def test_finalize_is_answered_per_utterance(server: LiveServer, warnings: list[str]) -> None:
    frames = await run(deepgram(server), warnings)
    assert len([frame for frame in check_text(frames) if frame.finalized]) >= 2
    kinds = [type(frame) for frame in frames]
    assert kinds.index(InterimTranscriptionFrame) < kinds.index(TranscriptionFrame)


async def test_segment_as_file(server: LiveServer, warnings: list[str]) -> None:
    frames = await run(OpenAISTTService(api_key=KEY, base_url=server.http("/v1"), model="whisper-1"), warnings)
    text = " ".join(frame.text for frame in frames if isinstance(frame, TranscriptionFrame))
    assert word_error_rate(TEXT, text) <= MAX_ERROR_RATE

"""Pipecat's services against our server, in a pipeline: only the URL and the key are ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate

from clients.conftest import KEY, chunks, pcm

pytest.importorskip("pipecat")
import numpy as np
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
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
FASTER = 3  # than it was spoken
CLIPS = ("hello_world", "counting")


def spoken() -> list[Frame]:
    """Two utterances as a transport and a VAD bring them: start, audio, stop, and two seconds of silence after each."""
    frames: list[Frame] = [SleepFrame(0.5)]  # for the service to connect
    for name in CLIPS:
        frames.append(VADUserStartedSpeakingFrame())
        frames += audio(clip(name).pcm(RATE))
        frames.append(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        frames += audio(pcm(np.zeros(2 * RATE, np.float32)))
        frames.append(SleepFrame(1.5))
    return frames


def audio(data: bytes) -> list[Frame]:
    frames: list[Frame] = []
    for chunk in chunks(data, RATE // 25 * 2):
        frames += [InputAudioRawFrame(chunk, RATE, 1), SleepFrame(0.04 / FASTER)]
    return frames


async def run(service: Any) -> tuple[Sequence[Frame], Sequence[Frame]]:
    params = PipelineParams(audio_in_sample_rate=RATE, enable_metrics=True)
    return await run_test(service, frames_to_send=spoken(), pipeline_params=params)


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


@pytest.mark.parametrize("make", [deepgram, flux, gradium, openai_local_vad, openai_server_vad])
async def test_both_utterances_are_heard_one_after_the_other(server: LiveServer, make: Make) -> None:
    down, up = await run(make(server))
    assert not [frame for frame in [*down, *up] if isinstance(frame, ErrorFrame)]
    said = [frame.text for frame in down if isinstance(frame, TranscriptionFrame)]
    heard = " ".join(said)
    assert word_error_rate(" ".join(clip(name).text for name in CLIPS), heard) <= 0.35
    assert len(said) >= 2


async def test_a_finalize_is_answered_so_that_the_time_to_the_first_byte_is_known(server: LiveServer) -> None:
    down, _ = await run(deepgram(server))
    assert any(isinstance(frame, InterimTranscriptionFrame) for frame in down)
    finalized = [frame for frame in down if isinstance(frame, TranscriptionFrame) and frame.finalized]
    assert len(finalized) >= 2
    metrics = [data for frame in down if isinstance(frame, MetricsFrame) for data in frame.data]
    assert [data for data in metrics if isinstance(data, TTFBMetricsData) and data.value > 0]


async def test_a_segment_as_a_file(server: LiveServer) -> None:
    down, up = await run(OpenAISTTService(api_key=KEY, base_url=server.http("/v1"), model="whisper-1"))
    assert not [frame for frame in [*down, *up] if isinstance(frame, ErrorFrame)]
    said = " ".join(frame.text for frame in down if isinstance(frame, TranscriptionFrame))
    assert word_error_rate(" ".join(clip(name).text for name in CLIPS), said) <= 0.5

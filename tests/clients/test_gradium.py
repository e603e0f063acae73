"""Gradium's own package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clients import KEY, MAX_ERROR_RATE, TEXT, chunks, pcm, speech
from support.server import LiveServer
from support.speech import word_error_rate

gradium = pytest.importorskip("gradium")
pytestmark = pytest.mark.clients


def client(server: LiveServer, key: str = KEY) -> Any:
    return gradium.GradiumClient(base_url=server.http("/api/"), api_key=key)


@pytest.mark.parametrize(("input_format", "rate"), [("pcm", 24_000), ("pcm_16000", 16_000)])
async def test_conversation(server: LiveServer, input_format: str, rate: int) -> None:
    samples = speech(rate)
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(60), client(server).stt_realtime(model_name="default", input_format=input_format) as stt:
        for chunk in chunks(pcm(samples), rate // 25 * 2):
            await stt.send_audio(chunk)
        await stt.send_flush(42)
        await stt.send_eos()
        while not messages or messages[-1]["type"] != "end_of_stream":
            messages.append(await stt.recv())
        assert await stt.recv() is None  # closed
        assert stt._ws.close_code == 1000
    assert messages[0]["type"] == "ready"
    assert messages[0]["delay_in_frames"] == messages[0]["delay_in_tokens"]
    steps = [message for message in messages if message["type"] == "step"]
    assert [step["step_idx"] for step in steps] == list(range(len(steps)))
    assert len(steps) * 0.08 == pytest.approx(len(samples) / rate, abs=0.081)
    assert all(0 <= step["vad"][2]["inactivity_prob"] <= 1 for step in steps)
    assert steps[-1]["vad"][2]["inactivity_prob"] > 0.9  # the three seconds of silence at the end
    words = [message for message in messages if message["type"] == "text"]
    assert word_error_rate(TEXT, " ".join(word["text"] for word in words)) <= MAX_ERROR_RATE
    assert [word["start_s"] for word in words] == sorted(word["start_s"] for word in words)
    assert [message["flush_id"] for message in messages if message["type"] == "flushed"] == [42]


async def test_stream_of_generator(server: LiveServer) -> None:
    async def audio() -> AsyncIterator[Any]:
        for chunk in chunks(pcm(speech(24_000)), 3840):
            yield chunk

    stream = await client(server).stt_stream({"model_name": "default", "input_format": "pcm"}, audio())
    segments = [segment async for segment in stream.iter_text()]
    assert stream.delay_in_frames is not None
    assert word_error_rate(TEXT, " ".join(segment.text for segment in segments)) <= MAX_ERROR_RATE


async def test_wrong_key(server: LiveServer) -> None:
    with pytest.raises(Exception, match="401"):
        async with client(server, "wrong").stt_realtime(model_name="default", input_format="pcm"):
            pass


async def test_unknown_format(server: LiveServer) -> None:
    with pytest.raises(RuntimeError, match="input_format"):
        async with client(server).stt_realtime(model_name="default", input_format="mp9") as stt:
            await stt.recv()

"""OpenAI's own package: realtime sessions, files in every format, keys for browsers."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import pytest
from support.clients import KEY, MAX_ERROR_RATE, TEXT, chunks, pcm, speech, wav
from support.server import LiveServer
from support.speech import clip, word_error_rate

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.clients

PREFIX = "conversation.item.input_audio_transcription"
QUERY = {"intent": "transcription"}
VADS: list[dict[str, Any]] = [
    {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 600, "silence_duration_ms": 500},
    {"type": "semantic_vad", "eagerness": "high"},
]


def client(server: LiveServer, key: str = KEY) -> Any:
    return openai.OpenAI(api_key=key, base_url=server.http("/v1"), max_retries=0)


def session(turn_detection: object) -> dict[str, Any]:
    return {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "kyutai/stt-1b-en_fr", "language": "en"},
                "turn_detection": turn_detection,
            }
        },
    }


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def check(events: list[Any], items: int) -> None:
    """Check that the deltas of every item add up to its transcript and that words are in order."""
    assert len({event.event_id for event in events}) == len(events)
    completed = [event for event in events if event.type == f"{PREFIX}.completed"]
    assert len(completed) == items
    for done in completed:
        deltas = [event.delta for event in events if event.type == f"{PREFIX}.delta" and event.item_id == done.item_id]
        assert "".join(deltas) == done.transcript
        assert done.usage.type == "duration"
        assert done.usage.seconds >= 0
        assert " ".join(word["word"] for word in done.words) == done.transcript
    assert word_error_rate(TEXT, " ".join(done.transcript for done in completed)) <= MAX_ERROR_RATE
    starts = [word["start"] for done in completed for word in done.words]
    assert starts == sorted(starts)


@pytest.mark.parametrize("vad", VADS, ids=lambda vad: vad["type"])
def test_server_vad(server: LiveServer, vad: dict[str, Any]) -> None:
    with client(server).realtime.connect(extra_query=QUERY) as connection:
        created = connection.recv()
        assert created.type == "session.created"
        assert created.session.type == "transcription"
        connection.session.update(session=session(vad))
        updated = connection.recv()
        assert updated.session.audio.input.turn_detection.type == vad["type"]
        stop = threading.Event()

        def talk() -> None:
            for chunk in chunks(pcm(speech(24_000)), 3840):
                connection.input_audio_buffer.append(audio=encoded(chunk))
                if stop.wait(0.08 / 4):
                    return

        talker = threading.Thread(target=talk)
        talker.start()
        events: list[Any] = []
        while sum(event.type == f"{PREFIX}.completed" for event in events) < 2:
            events.append(connection.recv())
        stop.set()
        talker.join()
    check(events, 2)
    kinds = [event.type for event in events if event.type != f"{PREFIX}.delta"]
    turn = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        f"{PREFIX}.completed",
    ]
    assert kinds == turn + turn
    stopped = [event.audio_end_ms for event in events if event.type == "input_audio_buffer.speech_stopped"]
    started = [event.audio_start_ms for event in events if event.type == "input_audio_buffer.speech_started"]
    assert started[0] < stopped[0] <= started[1] < stopped[1]


async def test_client_commits(server: LiveServer) -> None:
    async_client = openai.AsyncOpenAI(api_key=KEY, base_url=server.http("/v1"), max_retries=0)
    async with async_client.realtime.connect(extra_query={**QUERY, "model": "whisper-1"}) as connection:
        await connection.session.update(session=session(None))
        await connection.input_audio_buffer.append(audio=encoded(clip("one_to_five").pcm()))
        await connection.input_audio_buffer.commit()
        await connection.input_audio_buffer.append(audio=encoded(clip("six_to_ten").pcm()))
        await connection.input_audio_buffer.commit()
        await connection.input_audio_buffer.commit()  # empty, which is an error
        await connection.input_audio_buffer.append(audio=encoded(clip("counting").pcm()))
        await connection.input_audio_buffer.clear()
        events: list[Any] = []
        async with asyncio.timeout(30):
            while not events or events[-1].type != "input_audio_buffer.cleared":
                events.append(await connection.recv())
    assert [event.type for event in events[:2]] == ["session.created", "session.updated"]
    assert events[1].session.audio.input.turn_detection is None
    assert [event.error.code for event in events if event.type == "error"] == ["input_audio_buffer_commit_empty"]
    kept = {event.item_id for event in events if event.type == f"{PREFIX}.completed"}
    cleared = [
        event for event in events if getattr(event, "item_id", None) not in kept and event.type.endswith("delta")
    ]
    check([event for event in events if event not in cleared and event.type != "session.created"], 2)
    assert not any(event.type.startswith("input_audio_buffer.speech") for event in events)


def test_client_secret(server: LiveServer) -> None:
    secret = client(server).realtime.client_secrets.create(session=session(None))
    assert secret.value.startswith("ek_")
    with client(server, secret.value).realtime.connect(extra_query=QUERY) as connection:
        assert connection.recv().type == "session.created"


def test_wrong_key(server: LiveServer) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        client(server, "wrong").audio.transcriptions.create(model="whisper-1", file=("a.wav", b"x"))
    assert refused.value.code == "invalid_api_key"


@pytest.fixture(scope="module")
def file() -> tuple[str, bytes]:
    return "talk.wav", wav(speech(16_000, pause_seconds=1.0), 16_000)


def test_file_as_json_and_text(server: LiveServer, file: tuple[str, bytes]) -> None:
    transcriptions = client(server).audio.transcriptions
    answer = transcriptions.create(model="whisper-1", file=file)
    assert word_error_rate(TEXT, answer.text) <= MAX_ERROR_RATE
    assert answer.usage.type == "duration"
    assert transcriptions.create(model="whisper-1", file=file, response_format="text").strip() == answer.text


@pytest.mark.parametrize(("format", "first"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT")])
def test_file_as_subtitles(server: LiveServer, file: tuple[str, bytes], format: Any, first: str) -> None:
    answer = client(server).audio.transcriptions.create(model="whisper-1", file=file, response_format=format)
    assert answer.startswith(first)
    assert "-->" in answer


def test_file_as_verbose_json(server: LiveServer, file: tuple[str, bytes]) -> None:
    answer = client(server).audio.transcriptions.create(
        model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert word_error_rate(TEXT, " ".join(word.word for word in answer.words)) <= MAX_ERROR_RATE
    assert [word.start for word in answer.words] == sorted(word.start for word in answer.words)
    assert len(answer.segments) >= 2
    assert " ".join(segment.text for segment in answer.segments) == answer.text
    assert answer.duration == pytest.approx(len(speech(16_000, pause_seconds=1.0)) / 16_000, abs=0.1)


def test_file_as_event_stream(server: LiveServer, file: tuple[str, bytes]) -> None:
    events = list(client(server).audio.transcriptions.create(model="whisper-1", file=file, stream=True))
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert word_error_rate(TEXT, events[-1].text) <= MAX_ERROR_RATE


def test_models(server: LiveServer) -> None:
    models = client(server).models.list().data
    assert [model.id for model in models] == ["embedded"]
    assert client(server).models.retrieve("embedded").id == "embedded"
    with pytest.raises(openai.NotFoundError):
        client(server).models.retrieve("whisper-1")

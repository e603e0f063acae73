"""Files in the body of a POST request, as moshi-server takes them."""

from __future__ import annotations

import io
import threading
import wave
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate
from websockets.sync.client import connect

from tympan.engine.scripted import scripted_words
from tympan.server.routes import kyutai

PATH = "/api/asr-streaming"


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    with LiveServer(max_streams=1, upload_bytes=1 << 20) as server:
        yield server


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded") as server:
        yield server


def wav(pcm: bytes, sample_rate: int = 24_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes(pcm)
    return file.getvalue()


@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 48_000])
def test_speech(embedded: LiveServer, sample_rate: int) -> None:
    speech = clip("counting")
    answer = httpx.post(embedded.http(PATH), content=wav(speech.pcm(sample_rate), sample_rate), timeout=30)
    assert answer.status_code == 200
    messages = answer.json()
    assert {fields["type"] for fields in messages} == {"Word", "EndWord"}
    assert word_error_rate(speech.text, " ".join(fields.get("text", "") for fields in messages)) <= 0.1


def test_words_and_end_words(scripted: LiveServer) -> None:
    answer = httpx.post(scripted.http(PATH), content=wav(bytes(100 * 3840)), timeout=30)
    expected = [
        fields
        for word in scripted_words(100)
        for fields in (
            {"type": "Word", "text": word.text, "start_time": word.start},
            {"type": "EndWord", "stop_time": word.end},
        )
    ]
    assert answer.json() == expected


def test_silence(embedded: LiveServer) -> None:
    assert httpx.post(embedded.http(PATH), content=wav(bytes(48_000)), timeout=30).json() == []


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 400), (b"this is no audio" * 100, 400), (wav(bytes(2 << 20)), 413)]
)
def test_errors(scripted: LiveServer, content: bytes, status: int) -> None:
    answer = httpx.post(scripted.http(PATH), content=content, timeout=30)
    assert answer.status_code == status
    assert answer.json()["type"] == "Error"
    assert len(answer.json()["message"].split()) > 2
    assert scripted.service.engine.active == 0


def test_waits_for_slot(scripted: LiveServer) -> None:
    with connect(scripted.url(PATH)) as socket:
        socket.recv(timeout=10)
        leave = threading.Timer(0.5, socket.close)
        leave.start()
        answer = httpx.post(scripted.http(PATH), content=wav(bytes(10 * 3840)), timeout=30)
        leave.join()
    assert [fields["type"] for fields in answer.json()] == ["Word", "EndWord"] * 2


def test_wait_is_limited(scripted: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kyutai, "MAX_WAIT_SECONDS", 0.3)
    with connect(scripted.url(PATH)) as socket:
        socket.recv(timeout=10)
        answer = httpx.post(scripted.http(PATH), content=wav(bytes(10 * 3840)), timeout=30)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json() == {"type": "Error", "message": "no free channels"}

"""Files on live sockets of raw samples: a WAV sets the format if the client declared none, others cause a warning."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from support.server import LiveServer
from support.wav import wav
from websockets.sync.client import connect

from tympan.engine.scripted import scripted_words

SECONDS = 12.0
FILE = b"".join(wav(SECONDS))  # µ-law at 8 kHz: as samples at 24 kHz with 16 bits it would last 2 s
WORDS = " ".join(word.text for word in scripted_words(round(SECONDS / 0.08)))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.mark.parametrize("piece", [5, 4_000, len(FILE)])
def test_native_stream_without_a_format(server: LiveServer, piece: int) -> None:
    with connect(server.url()) as socket:
        for start in range(0, min(len(FILE), 20 * piece), piece):
            socket.send(FILE[start : start + piece])
        socket.send(FILE[20 * piece :])
        socket.send("EOS")
        messages = [json.loads(message) for message in socket]
    assert "".join(message.get("text", "") for message in messages) == WORDS
    assert not any("warning" in message for message in messages)


def test_native_stream_with_a_format(server: LiveServer) -> None:
    with connect(server.url(encoding="s16le", events="word")) as socket:
        socket.send(FILE)
        socket.send("EOS")
        messages = [json.loads(message) for message in socket]
    warnings = [message for message in messages if message["type"] == "warning"]
    assert [warning["code"] for warning in warnings if warning["code"] == "container"] == ["container"]
    assert messages[-1]["audio_seconds"] == pytest.approx(SECONDS * 8_000 / 48_000, abs=0.01)


def test_realtime_session_without_a_format(server: LiveServer) -> None:
    with connect(server.url("/v1/realtime")) as socket:
        session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        socket.send(json.dumps({"type": "session.update", "session": session}))
        for start in range(0, len(FILE), 10_000):
            audio = base64.encodebytes(FILE[start : start + 10_000]).decode()
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "!", "event_id": "wrong"}))
        errors, text = [], ""
        while not text:
            message = json.loads(socket.recv(timeout=10))
            if message["type"] == "error":
                errors.append(message["error"]["event_id"])
                socket.send('{"type": "input_audio_buffer.commit"}')
            elif message["type"].endswith("transcription.completed"):
                text = message["transcript"]
    assert errors == ["wrong"], "the session continues after invalid base64"
    # The end of a container remains in its decoder until more of it arrives.
    assert text in WORDS
    assert len(text.split()) >= len(WORDS.split()) - 2


@pytest.mark.parametrize(
    ("given", "name"), [("", "english"), ("en", "english"), ("en-US", "english"), ("fr", "english")]
)
def test_language_of_verbose_json(server: LiveServer, given: str, name: str) -> None:
    """The model knows English only, and the answer does not claim another language."""
    fields = {"response_format": "verbose_json", **({"language": given} if given else {})}
    answer = httpx.post(server.http("/v1/audio/transcriptions"), data=fields, files={"file": ("a.wav", FILE)})
    assert answer.json()["language"] == name

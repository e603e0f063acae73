"""Streams over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.server import LiveServer
from support.speech import clip, plain_words, word_error_rate
from websockets.sync.client import ClientConnection, connect

from tympan.engine.scripted import scripted_words


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded") as server:
        yield server


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


def frames(count: float) -> bytes:
    """Return frames of silence for the scripted engine."""
    return bytes(int(count * 1920) * 2)


def converse(url: str, *messages: str | bytes) -> tuple[list[dict[str, Any]], int | None]:
    """Send all messages, and return the answers and the close code."""
    with connect(url) as socket:
        for message in messages:
            socket.send(message)
        return read_all(socket), socket.close_code


def read_all(socket: ClientConnection) -> list[dict[str, Any]]:
    return [json.loads(message) for message in socket]


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/transcribe"])
@pytest.mark.parametrize("end", ["EOS", b"EOS", '{"type": "finish"}'])
def test_speech_is_transcribed_once(embedded: LiveServer, path: str, end: str | bytes) -> None:
    pcm = clip("counting").pcm()
    chunks = [pcm[start : start + 3333] for start in range(0, len(pcm), 3333)]  # splits samples
    messages, code = converse(embedded.url(path), *chunks, end)

    assert code == 1000
    assert messages[-1] == {"status": "complete"}
    assert [message["final"] for message in messages[:-1]] == [False] * (len(messages) - 2) + [True]
    transcript = "".join(message["text"] for message in messages[:-1])
    assert word_error_rate(clip("counting").text, transcript) <= 0.1
    assert transcript == transcript.strip()
    assert "  " not in transcript


@pytest.mark.parametrize(
    ("encoding", "sample_rate"),
    [("s16le", 48_000), ("s16le", 16_000), ("f32le", 44_100), ("mulaw", 16_000), ("alaw", 16_000)],
)
def test_raw_encodings(embedded: LiveServer, encoding: str, sample_rate: int) -> None:
    samples = clip("counting").at(sample_rate)
    encode = {"s16le": s16le, "f32le": np.ndarray.tobytes, "mulaw": mulaw, "alaw": alaw}[encoding]
    url = embedded.url(encoding=encoding, sample_rate=sample_rate, events="word")
    messages, code = converse(url, encode(samples), "EOS")
    heard = " ".join(message["text"] for message in messages if message["type"] == "word")
    assert code == 1000
    assert word_error_rate(clip("counting").text, heard) <= 0.1


def s16le(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def mulaw(samples: np.ndarray) -> bytes:
    """Encode by the formula of ITU-T G.711, which is close enough to its tables for speech."""
    magnitude = np.log1p(255 * np.abs(samples)) / np.log1p(255)
    code = np.minimum(127, (magnitude * 128).astype(np.uint8)) | np.where(samples < 0, 128, 0).astype(np.uint8)
    return (~code).astype(np.uint8).tobytes()


def alaw(samples: np.ndarray) -> bytes:
    a = 87.6
    x = np.abs(samples)
    magnitude = np.where(x < 1 / a, a * x, 1 + np.log(np.maximum(a * x, 1e-9))) / (1 + np.log(a))
    code = np.minimum(127, (magnitude * 128).astype(np.uint8)) | np.where(samples < 0, 0, 128).astype(np.uint8)
    return (code ^ 0x55).astype(np.uint8).tobytes()


def test_events_in_order(embedded: LiveServer) -> None:
    messages, code = converse(embedded.url(events="all"), clip("hello_world").pcm(), "EOS")

    kinds = [message["type"] for message in messages]
    assert code == 1000
    assert kinds[0] == "ready"
    assert kinds[-1] == "complete"
    assert {"partial", "word", "segment", "turn", "vad", "lag"} <= set(kinds)
    words = [message for message in messages if message["type"] == "word"]
    assert plain_words(" ".join(word["text"] for word in words)) == ["hello", "world"]
    assert words[0]["end"] <= words[1]["start"] < words[1]["end"] <= messages[-1]["audio_seconds"]
    assert [message["state"] for message in messages if message["type"] == "turn"] == ["started", "ended"]
    segments = [plain_words(message["text"]) for message in messages if message["type"] == "segment"]
    assert segments == [["hello", "world"]]
    assert messages[-1]["audio_seconds"] == pytest.approx(len(clip("hello_world").samples) / 16_000, abs=0.01)


def test_words_arrive_during_speech(scripted: LiveServer) -> None:
    with connect(scripted.url()) as socket:
        socket.send(frames(40))
        assert json.loads(socket.recv(timeout=10)) == {"text": "word0", "final": False}
        socket.send(frames(1))
        socket.send("EOS")
        messages = read_all(socket)
    texts = "word0" + "".join(message.get("text", "") for message in messages)
    assert texts == " ".join(word.text for word in scripted_words(41))


def test_flush_follows_its_words(scripted: LiveServer) -> None:
    with connect(scripted.url(events="word")) as socket:
        socket.send(frames(12))
        socket.send('{"type": "flush", "id": 5}')
        answers = [json.loads(socket.recv(timeout=10)) for _ in range(4)]
        assert [answer.get("text") for answer in answers] == ["word0", "word1", "word2", None]
        assert answers[-1] == {"type": "flushed", "id": 5}
        socket.send(frames(12))
        socket.send("EOS")
        later = read_all(socket)
    assert [message["text"] for message in later if message["type"] == "word"] == ["word3", "word4"]
    assert later[-1]["audio_seconds"] == pytest.approx(24 * 0.08)


def test_two_channels(scripted: LiveServer) -> None:
    stereo = bytes(30 * 1920 * 2 * 2)
    messages, code = converse(scripted.url(channels=2, events="word,lag"), stereo, '{"type": "flush", "id": 1}', "EOS")

    words = [
        [message["text"] for message in messages if message.get("channel") == side and message["type"] == "word"]
        for side in (0, 1)
    ]
    assert code == 1000
    assert words[0] == words[1] == [word.text for word in scripted_words(30)]
    assert [message["type"] for message in messages].count("flushed") == 1
    assert [message["type"] for message in messages].count("complete") == 1


def test_backpressure_loses_nothing(scripted: LiveServer) -> None:
    """Send ten minutes as fast as possible, far above the backlog limit."""
    count = 7500
    with connect(scripted.url(events="word,lag"), max_queue=None) as socket:
        for _ in range(count // 100):
            socket.send(frames(100))
        socket.send("EOS")
        messages = read_all(socket)
    words = [message["text"] for message in messages if message["type"] == "word"]
    assert words == [word.text for word in scripted_words(count)]
    limit = scripted.config.limits.backlog_seconds + 8.1  # plus the message in transit
    assert max(message["behind"] for message in messages if message["type"] == "lag") <= limit

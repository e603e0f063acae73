"""Addresses, audio and messages, without any connection."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import pytest

from tympan.client import wire
from tympan.errors import ParameterError
from tympan.messages import Complete, Flushed, Lag, Ready, Turn, Vad, Warning, Word

S16 = wire.AudioFormat.of("s16le", None)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("ws://host:8000", "ws://host:8000/v1/stream"),
        ("wss://host/", "wss://host/v1/stream"),
        ("http://host:8000", "ws://host:8000/v1/stream"),
        ("https://host/v1/transcribe", "wss://host/v1/transcribe"),
        ("ws://[::1]:8000", "ws://[::1]:8000/v1/stream"),
        ("ws://host/stt", "ws://host/stt/v1/stream"),
        ("wss://host/a/stt/", "wss://host/a/stt/v1/stream"),
        ("https://host/stt/v1/stream/", "wss://host/stt/v1/stream"),
        ("http://host:8000/v1", "ws://host:8000/v1/stream"),
    ],
)
def test_addresses(given: str, address: str) -> None:
    assert wire.stream_url(given, S16, ["word"]).split("?")[0] == address


def test_query() -> None:
    url = wire.stream_url(
        "ws://h/?token=k%20y&events=all", wire.AudioFormat.of("mulaw", None), ["ready", "word", "word"]
    )
    assert parse_qs(urlsplit(url).query) == {
        "token": ["k y"],
        "encoding": ["mulaw"],
        "events": ["ready,word"],
        "sample_rate": ["8000"],
        "resume": ["yes"],
    }


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "ws://", ""])
def test_invalid_address(url: str) -> None:
    with pytest.raises(ParameterError, match="expected ws://"):
        wire.stream_url(url, S16, ["word"])


def test_encode_samples() -> None:
    samples = np.array([0.0, 1.0, -1.0, 7.0, 0.5], dtype=np.float32)
    assert np.frombuffer(S16.encode(samples), "<i2").tolist() == [0, 32767, -32767, 32767, 16384]
    assert np.frombuffer(wire.AudioFormat.of("f32le", None).encode(samples), "<f4").tolist() == samples.tolist()
    assert S16.encode(bytearray(b"\x01")) == b"\x01"


def test_encode_integers() -> None:
    samples = np.array([0, 32767, -32768, 16384], np.int16)
    assert S16.encode(samples) == samples.astype("<i2").tobytes()
    assert S16.encode(samples.astype(">i2")) == samples.astype("<i2").tobytes()
    floats = np.frombuffer(wire.AudioFormat.of("f32le", None).encode(samples), "<f4")
    assert floats.tolist() == [0.0, 32767 / 32768, -1.0, 0.5]


@pytest.mark.parametrize(
    ("encoding", "samples", "message"),
    [
        ("s16le", np.zeros((2, 2), np.float32), "invalid samples float32 [2, 2]: expected a one-dimensional array"),
        ("s16le", np.zeros((2, 2), np.int16), "invalid samples int16 [2, 2]"),
        ("s16le", np.zeros(2, np.int32), "invalid samples int32 [2]"),
        ("opus", np.zeros(2, np.int16), "send bytes"),
        ("opus", np.zeros(2, np.float32), "send bytes"),
    ],
)
def test_encode_invalid_samples(encoding: str, samples: np.ndarray, message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        wire.AudioFormat.of(encoding, None).encode(samples)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ('{"type":"word","text":"a","start":1,"end":1.5,"confidence":0.5,"channel":0}', Word("a", 1.0, 1.5, 0.5)),
        ('{"type":"turn","state":"ended","time":2.0,"probability":0.9}', Turn("ended", 2.0, 0.9)),
        ('{"type":"flushed","id":7}', Flushed(7)),
        ('{"type":"complete","status":"complete","audio_seconds":3.0,"words":1}', Complete(3.0, 1)),
        ('{"type":"error","code":"idle","message":"too quiet"}', wire.Failure("idle", "too quiet")),
        ('{"type":"news","from":"a later server"}', None),
        ('{"text":"simple form","final":false}', None),
    ],
)
def test_messages(message: str, event: object) -> None:
    assert wire.decode(message) == event


@pytest.mark.parametrize("message", ["", "[]", "EOS", '{"type":"word"}', '{"type":"turn","state":"odd"}'])
def test_invalid_messages(message: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.decode(message)


def test_shifted() -> None:
    assert wire.shifted(Word("a", 1.0, 2.0, 0.5), 3.0) == Word("a", 4.0, 5.0, 0.5)
    assert wire.shifted(Lag(5.0, 4.0, 1.0), 3.0) == Lag(8.0, 7.0, 1.0)
    assert wire.shifted(Vad(1.0, (0.5,)), 3.0) == Vad(4.0, (0.5,))
    assert wire.shifted(Complete(1.0, 2), 3.0) == Complete(4.0, 2)
    for still in (Flushed(1), Warning("a", "b"), Ready("s", "m", "e", 1, 0.5, ())):
        assert wire.shifted(still, 3.0) == still


def test_events_by_name() -> None:
    assert wire.event_types(["word"]) == {Word, Warning, Flushed, Complete}
    assert Vad in wire.event_types(["all"])
    assert Vad not in wire.event_types(wire.DEFAULT_EVENTS)

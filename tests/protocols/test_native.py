"""The native protocol: messages and events in, commands and messages out."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.protocols import SERVER_INFO, answers

from tympan.errors import (
    AudioError,
    CapacityError,
    EngineError,
    FrameError,
    IdleError,
    ParameterError,
    RestartingError,
    SlowReaderError,
    TooBigError,
    TympanError,
)
from tympan.messages import (
    Audio,
    AudioFormat,
    Complete,
    Event,
    Finish,
    Flush,
    Flushed,
    KeepAlive,
    Lag,
    Partial,
    Ready,
    Segment,
    Turn,
    Vad,
    Warning,
    Word,
)
from tympan.protocols.base import Refusal, Request
from tympan.protocols.native import NativeProtocol

HELLO, WORLD = Word("hello", 0.0, 0.4, 0.9), Word("world", 0.4, 0.8, 0.8)
EVERY_EVENT: list[Event] = [
    Ready("s", "m", "e", 24000, 0.5, (2.0,)),
    Partial("hel", 0.0),
    HELLO,
    Segment("hello", 0.0, 0.4),
    Turn("started", 0.0, 0.1),
    Vad(0.08, (0.5,)),
    Lag(1.0, 0.9, 0.1),
    Warning("clipping", "too loud"),
    Flushed(3),
    Complete(1.0, 1),
]


def connect(headers: dict[str, str] | None = None, **query: str) -> NativeProtocol:
    return NativeProtocol(Request("/v1/stream", query, headers or {}), SERVER_INFO)


def started(**query: str) -> NativeProtocol:
    protocol = connect(**query)
    protocol.start()
    return protocol


def test_simple_form() -> None:
    protocol = started()
    assert protocol.receive(b"\0\0") == (Audio(b"\0\0"),)
    assert answers(protocol, *EVERY_EVENT[:2], HELLO, WORLD) == [
        {"text": "hello", "final": False},
        {"text": " world", "final": False},
    ]
    assert protocol.receive("EOS") == (Finish(),)
    assert answers(protocol, Word("hello", 0.8, 1.0, 1.0), Complete(1.0, 3)) == [
        {"text": " hello", "final": True},
        {"status": "complete"},
    ]


def test_final_text_may_be_empty() -> None:
    protocol = started()
    protocol.receive(b"EOS")
    assert answers(protocol, Complete(0.0, 0)) == [{"text": "", "final": True}, {"status": "complete"}]


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1), max_size=20), st.integers(0, 20))
def test_simple_form_joins_to_the_transcript(words: list[str], finish_after: int) -> None:
    protocol = started()
    messages = answers(protocol, *(Word(text, 0.0, 0.0, 1.0) for text in words[:finish_after]))
    protocol.receive("EOS")
    messages += answers(protocol, *(Word(text, 0.0, 0.0, 1.0) for text in words[finish_after:]), Complete(0.0, 0))
    assert "".join(message.get("text", "") for message in messages) == " ".join(words)
    assert [message["final"] for message in messages if "final" in message].count(True) == 1
    assert messages[-1] == {"status": "complete"}


def test_typed_form_has_every_field() -> None:
    assert answers(started(events="all"), *EVERY_EVENT) == [
        {
            "type": "ready",
            "session": "s",
            "model": "m",
            "engine": "e",
            "sample_rate": 24000,
            "delay_seconds": 0.5,
            "pause_horizons": [2.0],
        },
        {"type": "partial", "text": "hel", "start": 0.0},
        {"type": "word", "text": "hello", "start": 0.0, "end": 0.4, "confidence": 0.9},
        {"type": "segment", "text": "hello", "start": 0.0, "end": 0.4},
        {"type": "turn", "state": "started", "time": 0.0, "probability": 0.1},
        {"type": "vad", "time": 0.08, "pauses": [0.5]},
        {"type": "lag", "received": 1.0, "processed": 0.9, "behind": 0.1},
        {"type": "warning", "code": "clipping", "message": "too loud"},
        {"type": "flushed", "id": 3},
        {"type": "complete", "status": "complete", "audio_seconds": 1.0, "words": 1},
    ]


def test_only_selected_events_are_sent() -> None:
    protocol = started(events="word, turn")
    assert [message["type"] for message in answers(protocol, *EVERY_EVENT)] == [
        "word",
        "turn",
        "warning",
        "flushed",
        "complete",
    ]


def test_two_channels() -> None:
    protocol = started(channels="2")
    assert answers(protocol, HELLO, channel=1) + answers(protocol, HELLO, channel=0) == [
        {"text": "hello", "final": False, "channel": 1},
        {"text": "hello", "final": False, "channel": 0},
    ]
    protocol.receive("EOS")
    assert answers(protocol, WORLD, channel=1) == []
    assert answers(protocol, Complete(1.0, 3)) == [
        {"text": "", "final": True, "channel": 0},
        {"text": " world", "final": True, "channel": 1},
        {"status": "complete"},
    ]


def test_commands() -> None:
    protocol = started()
    assert protocol.receive('{"type": "flush"}') == (Flush(0),)
    assert protocol.receive('{"type": "flush", "id": 7, "later": "fields are fine"}') == (Flush(7),)
    assert protocol.receive('{"type": "keepalive"}') == (KeepAlive(),)
    assert protocol.receive(b"") == (Audio(b""),)
    assert protocol.receive('{"type": "finish"}') == (Finish(),)
    assert protocol.receive(b"late") == ()
    assert protocol.receive("nonsense") == ()


@pytest.mark.parametrize(
    "text", ["hello", "", "{}", "[1]", "null", '{"type": 1}', '{"type": "flush", "id": "x"}', "\ud800"]
)
def test_invalid_text_frame(text: str) -> None:
    with pytest.raises(FrameError, match="binary frames"):
        started().receive(text)


def test_unknown_command() -> None:
    with pytest.raises(FrameError, match=r"'dance'.*flush, keepalive and finish"):
        started().receive('{"type": "dance"}')


@given(st.text() | st.binary())
def test_random_messages(message: str | bytes) -> None:
    with suppress(FrameError):
        started(events="all").receive(message)


def test_parameters() -> None:
    assert connect().start() == AudioFormat("s16le", 24_000, 1)
    assert connect(encoding="mulaw").start() == AudioFormat("mulaw", 8_000, 1)
    assert connect(encoding="f32le", sample_rate="48000", channels="2").start() == AudioFormat("f32le", 48_000, 2)
    assert connect(model="anything", colour="blue").start() == AudioFormat("s16le", 24_000, 1)


@pytest.mark.parametrize(
    "query",
    [
        {"encoding": "mp4a"},
        {"sample_rate": "7999"},
        {"sample_rate": "fast"},
        {"channels": "7"},
        {"channels": "0"},
        {"events": "words"},
    ],
)
def test_invalid_parameter_is_named(query: dict[str, str]) -> None:
    with pytest.raises(ParameterError) as caught:
        connect(**query).start()
    assert next(iter(query.values())) in str(caught.value)


def test_credential() -> None:
    assert connect({"authorization": "Bearer k1"}, token="k2").credential() == "k1"
    assert connect({"authorization": "bearer k1"}).credential() == "k1"
    assert connect({"authorization": "Basic k1"}, token="k2").credential() == "k2"
    assert connect().credential() is None


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (FrameError("x"), 1003, "bad_frame"),
        (AudioError("x"), 1007, "bad_audio"),
        (ParameterError("x"), 1008, "bad_parameter"),
        (IdleError("x"), 1008, "idle"),
        (TooBigError("x"), 1009, "too_big"),
        (SlowReaderError("x"), 1013, "slow_reader"),
    ],
)
def test_close_with_client_error(error: TympanError, code: int, name: str) -> None:
    close_info = connect().fail(error)
    assert (close_info.code, close_info.reason) == (code, "x")
    assert [json.loads(message) for message in close_info.messages] == [{"type": "error", "code": name, "message": "x"}]


@pytest.mark.parametrize("error", [EngineError("cuda at 0x7f"), ValueError("/etc/secret"), RuntimeError("token abc")])
def test_close_with_internal_error(error: Exception) -> None:
    close_info = connect().fail(error)
    assert close_info.code == 1011
    assert close_info.reason == "internal error"
    assert str(error) not in "".join(map(str, close_info.messages))


def test_close() -> None:
    assert (connect().fail(None).code, connect().fail(None).messages) == (1000, ())
    restart = connect().fail(RestartingError("back soon"))
    assert (restart.code, restart.messages) == (1012, ())


def test_close_reason_is_truncated() -> None:
    reason = connect().fail(FrameError("é" * 200)).close_reason
    assert len(reason.encode()) <= 123
    assert set(reason) == {"é"}


def test_refusals() -> None:
    full = connect().refuse(CapacityError("full", retry_after_seconds=3))
    assert isinstance(full, Refusal)
    assert (full.status, full.headers["retry-after"]) == (503, "3")
    assert json.loads(full.body) == {"error": {"code": "full", "message": "full"}}

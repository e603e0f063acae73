"""Kyutai's protocol: messages and events in, commands and messages out."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from support.kyutai_wire import audio, closed_union, decode, message
from support.protocols import SERVER_INFO, answers

from tympan.errors import (
    AccessError,
    AudioError,
    CapacityError,
    EngineError,
    FrameError,
    IdleError,
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
    Flush,
    Flushed,
    Lag,
    Partial,
    Ready,
    Reset,
    Segment,
    SetFormat,
    Turn,
    Vad,
    Warning,
    Word,
)
from tympan.protocols.base import Refusal, Request, ServerInfo
from tympan.protocols.kyutai import KyutaiProtocol, error_fields, word_fields

F32, OPUS = AudioFormat("f32le", 24_000), AudioFormat("opus", 24_000)
HELLO, WORLD = Word("hello", 0.0, 0.4, 0.9), Word("world", 0.4, 0.8, 0.8)
PAUSES = (0.125, 0.25, 0.5, 1.0)
READY_BYTES = bytes.fromhex("81a474797065a55265616479")
MARKER_0_BYTES = bytes.fromhex("82a474797065a64d61726b6572a2696400")
WORD_HI_BYTES = bytes.fromhex("83a474797065a4576f7264a474657874a24869aa73746172745f74696d65cb3fdeb851eb851eb8")


def protocol(
    headers: dict[str, str] | None = None, server_info: ServerInfo = SERVER_INFO, **query: str
) -> KyutaiProtocol:
    opened = KyutaiProtocol(Request("/api/asr-streaming", query, headers or {}), server_info)
    assert opened.start() == F32
    return opened


def sent(opened: KyutaiProtocol, *events: Event) -> list[dict[str, Any]]:
    """Return the messages for these events, validated as unmute validates them."""
    messages = [decode(packed) for packed in answers(opened, *events)]
    for fields in messages:
        closed_union.validate_python(fields)
    return messages


def types(messages: list[dict[str, Any]]) -> list[str]:
    return [fields["type"] for fields in messages]


def test_audio_of_each_encoding() -> None:
    samples = np.linspace(-1, 1, 1920, dtype=np.float32)
    for packed in (audio(samples), audio(samples, 0xCB), message(type="Audio", pcm=samples.astype("<f4").tobytes())):
        assert protocol().receive(packed) == (Audio(samples.astype("<f4").tobytes()),)


def test_fields_in_any_order() -> None:
    assert protocol().receive(message(pcm=[], more=[{"a": [None]}], type="Audio")) == (Audio(b""),)


def test_opus_changes_the_format() -> None:
    opened = protocol()
    assert opened.receive(message(type="OggOpus", data=b"OggS")) == (SetFormat(OPUS), Audio(b"OggS"))
    assert opened.receive(message(type="OggOpus", data=list(b"more"))) == (Audio(b"more"),)
    assert opened.receive(audio([0.0])) == (SetFormat(F32), Audio(bytes(4)))
    assert opened.receive(audio([0.0])) == (Audio(bytes(4)),)


@pytest.mark.parametrize("id", [0, 7, 127, 128, 255, 65_536, 2**63 - 1, -1, -(2**63)])
def test_marker_id_is_returned(id: int) -> None:
    opened = protocol()
    opened.receive(audio([0.0]))
    (flush,) = opened.receive(message(type="Marker", id=id))
    assert isinstance(flush, Flush)
    assert sent(opened, Flushed(flush.marker)) == [{"type": "Marker", "id": id}]


def test_equal_markers_are_each_answered() -> None:
    opened = protocol()
    opened.receive(audio([0.0]))
    flushes = [opened.receive(message(type="Marker", id=5))[0] for _ in range(3)]
    markers = [flush.marker for flush in flushes if isinstance(flush, Flush)]
    assert len(set(markers)) == 3
    assert sent(opened, *[Flushed(marker) for marker in markers]) == [{"type": "Marker", "id": 5}] * 3
    assert sent(opened, Flushed(markers[0])) == []


def test_marker_before_audio() -> None:
    assert protocol().receive(message(type="Marker", id=0)) == (MARKER_0_BYTES,)


def test_init_resets_the_stream() -> None:
    opened = protocol()
    opened.receive(audio(np.zeros(4000)))
    sent(opened, Vad(0.08, PAUSES))
    assert opened.receive(message(type="Init")) == (Reset(), READY_BYTES)
    opened.receive(audio(np.zeros(1920)))
    (step,) = sent(opened, Vad(0.08, PAUSES))
    assert (step["step_idx"], step["buffered_pcm"]) == (0, 0)


def test_init_answers_pending_markers() -> None:
    opened = protocol()
    opened.receive(audio([0.0]))
    (flush,) = opened.receive(message(type="Marker", id=9))
    assert isinstance(flush, Flush)
    assert opened.receive(message(type="Init")) == (message(type="Marker", id=9), Reset(), READY_BYTES)
    assert sent(opened, Flushed(flush.marker)) == []


def test_text_frames_are_ignored() -> None:
    for text in ("", "EOS", '{"type": "Init"}'):
        assert protocol().receive(text) == ()


def test_encoding_matches_moshi_server() -> None:
    opened = protocol()
    assert answers(opened, Ready("s", "m", "e", 24_000, 0.5, (2.0,))) == [READY_BYTES]
    assert answers(opened, Word("Hi", 0.48, 0.6, 1.0)) == []
    opened.receive(audio(np.zeros(1920 + 300)))
    step, word, end_word = answers(opened, Vad(0.08, PAUSES))
    floats = b"".join(b"\xca" + struct.pack(">f", pause) for pause in PAUSES)
    assert step == (
        b"\x84\xa4type\xa4Step\xa8step_idx\x00\xa3prs\x94" + floats + b"\xacbuffered_pcm\xcd" + struct.pack(">H", 300)
    )
    assert word == WORD_HI_BYTES
    assert end_word == b"\x82\xa4type\xa7EndWord\xa9stop_time\xcb" + struct.pack(">d", 0.6)
    assert message(type="Marker", id=200) == b"\x82\xa4type\xa6Marker\xa2id\xcc\xc8"


def test_order_of_step_words_and_marker() -> None:
    opened = protocol()
    opened.receive(audio(np.zeros(1920)))
    (flush,) = opened.receive(message(type="Marker", id=3))
    assert isinstance(flush, Flush)
    messages = sent(opened, HELLO, Vad(0.08, PAUSES), WORLD, Flushed(flush.marker), Vad(0.16, PAUSES))
    assert types(messages) == ["Step", "Word", "EndWord", "Word", "EndWord", "Marker", "Step"]
    assert messages[1] == {"type": "Word", "text": "hello", "start_time": 0.0}
    assert messages[2] == {"type": "EndWord", "stop_time": 0.4}


def test_restart_sends_pending_words() -> None:
    opened = protocol()
    assert types(sent(opened, HELLO, Complete(1.0, 1))) == ["Word", "EndWord"]
    close_info = opened.fail(RestartingError("the server is restarting"))
    assert (close_info.code, close_info.messages) == (1012, ())


def test_step_index() -> None:
    messages = sent(protocol(), *[Vad(0.08 * (n + 1), PAUSES) for n in range(300)])
    assert [step["step_idx"] for step in messages] == list(range(300))


@pytest.mark.parametrize(
    ("pauses", "prs"),
    [
        ((0.5,), [0.5] * 4),
        ((0.5, 0.25, 0.75), [0.5, 0.25, 0.75, 0.75]),
        ((0.5, 0.25, 0.75, 0, 1), [0.5, 0.25, 0.75, 0]),
    ],
)
def test_four_pauses(pauses: tuple[float, ...], prs: list[float]) -> None:
    assert sent(protocol(), Vad(0.08, pauses))[0]["prs"] == prs


def test_engine_without_pauses_sends_no_steps() -> None:
    opened = protocol(server_info=ServerInfo("m", "e", 24_000, 1_920, 2.5, (), ("en",)))
    assert types(sent(opened, HELLO)) == ["Word", "EndWord"]


def test_buffered_pcm() -> None:
    opened = protocol()
    opened.receive(audio(np.zeros(24_000)))
    assert sent(opened, Vad(0.08, PAUSES))[0]["buffered_pcm"] == 24_000 - 1_920
    opened.receive(message(type="Audio", pcm=bytes(4 * 1_000)))
    assert sent(opened, Vad(0.16, PAUSES))[0]["buffered_pcm"] == 25_000 - 2 * 1_920


def test_buffered_pcm_of_opus() -> None:
    opened = protocol()
    opened.receive(message(type="OggOpus", data=b"OggS"))
    assert sent(opened, Vad(0.08, PAUSES))[0]["buffered_pcm"] == 0
    assert sent(opened, Lag(1.5, 1.0, 0.5), Vad(1.08, PAUSES))[0]["buffered_pcm"] == round(0.42 * 24_000)


def test_other_events_send_nothing() -> None:
    others = [Partial("hel", 0.0), Segment("hello", 0.0, 0.4), Turn("started", 0.0, 0.1), Warning("clipping", "loud")]
    assert sent(protocol(), *others) == []


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({}, {}, None),
        ({"kyutai-api-key": "a"}, {}, "a"),
        ({}, {"auth_id": "b"}, "b"),
        ({"kyutai-api-key": "a"}, {"auth_id": "b"}, "a"),
        ({"kyutai-api-key": ""}, {"auth_id": "b"}, ""),
        ({"authorization": "Bearer c"}, {"token": "d"}, None),
    ],
)
def test_credential(headers: dict[str, str], query: dict[str, str], key: str | None) -> None:
    assert protocol(headers, **query).credential() == key


@pytest.mark.parametrize(
    ("error", "status"),
    [(AccessError("this API key is not known"), 401), (RestartingError("the server is restarting"), 503)],
)
def test_refusal_before_the_upgrade(error: TympanError, status: int) -> None:
    refusal = protocol().refuse(error)
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert json.loads(refusal.body) == {"type": "Error", "message": str(error)}


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (CapacityError("all 4 streams are taken"), "no free channels", 1013),
        (EngineError("cuda error"), "internal error", 1011),
    ],
)
def test_refusal_after_the_upgrade(error: TympanError, sentence: str, code: int) -> None:
    close_info = protocol().refuse(error)
    assert not isinstance(close_info, Refusal)
    assert close_info.code == code
    assert list(close_info.messages) == [message(type="Error", message=sentence)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FrameError("what is this"), 1003),
        (AudioError("not audio"), 1007),
        (IdleError("nothing came"), 1008),
        (TooBigError("too big"), 1009),
        (RuntimeError("secret"), 1011),
        (SlowReaderError("the client does not read"), 1013),
    ],
)
def test_close_with_error(error: Exception, code: int) -> None:
    close_info = protocol().fail(error)
    (last,) = close_info.messages
    closed_union.validate_python(decode(last))
    assert close_info.code == code
    assert decode(last)["message"] == (str(error) if isinstance(error, TympanError) else "internal error")
    assert len(close_info.reason.encode()) <= 123


def test_normal_close() -> None:
    close_info = protocol().fail(None)
    assert (close_info.code, close_info.messages) == (1000, ())


def test_word_and_error_fields() -> None:
    word, end_word = word_fields(HELLO)
    assert word == {"type": "Word", "text": "hello", "start_time": 0.0}
    assert end_word == {"type": "EndWord", "stop_time": 0.4}
    assert error_fields(AudioError("not audio")) == {"type": "Error", "message": "not audio"}

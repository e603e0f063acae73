"""Gradium's protocol: messages and events in, commands and messages out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.protocols import SERVER_INFO, answers, decoded

from tympan.errors import (
    AccessError,
    AudioError,
    CapacityError,
    EngineError,
    FrameError,
    IdleError,
    ParameterError,
    RestartingError,
)
from tympan.messages import Audio, AudioFormat, Complete, Finish, Flush, Flushed, Ready, SetFormat, Vad, Word
from tympan.protocols.base import Droppable, Refusal, Request, ServerInfo
from tympan.protocols.gradium import FORMATS, GradiumProtocol

HORIZONS = SERVER_INFO.pause_horizons


def connect(headers: dict[str, str] | None = None, *, server_info: ServerInfo = SERVER_INFO) -> GradiumProtocol:
    return GradiumProtocol(Request("/api/speech/asr", {}, headers or {}, "an-id", 1.7e9), server_info)


def send(protocol: GradiumProtocol, **message: Any) -> list[Any]:
    return decoded(protocol.receive(json.dumps(message)))


def set_up() -> GradiumProtocol:
    protocol = connect()
    protocol.start()
    send(protocol, type="setup")
    return protocol


def test_setup_is_answered_with_ready() -> None:
    chosen, ready = send(connect(), type="setup", model_name="default", input_format="ulaw_8000")
    assert chosen == SetFormat(AudioFormat("mulaw", 8_000))
    assert ready == {
        "type": "ready",
        "request_id": "an-id",
        "model_name": "default",
        "sample_rate": 24_000,
        "frame_size": 1_920,
        "delay_in_frames": 6,
        "delay_in_tokens": 6,
        "text_stream_names": [],
    }


@pytest.mark.parametrize("input_format", FORMATS)
def test_input_formats(input_format: str) -> None:
    chosen, _ = send(connect(), type="setup", input_format=input_format)
    assert chosen == SetFormat(FORMATS[input_format])
    assert FORMATS[input_format].channels == 1


@pytest.mark.parametrize(
    "json_config", [{"delay_in_frames": 48, "language": "xx", "temp": 0.5}, '{"language": "fr"}', "no json", None, 5]
)
def test_json_config_is_ignored(json_config: Any) -> None:
    _, ready, *_ = send(connect(), type="setup", json_config=json_config, client_req_id="mine", unknown=1)
    assert ready["delay_in_frames"] == 6


def test_strict_model() -> None:
    strict = replace(SERVER_INFO, strict_model=True)
    for name in ("default", SERVER_INFO.model, None):
        assert send(connect(server_info=strict), type="setup", model_name=name)[1]["type"] == "ready"
    with pytest.raises(ParameterError):
        send(connect(server_info=strict), type="setup", model_name="another")


@pytest.mark.parametrize(
    "message", ['{"type": "audio", "audio": "AAAA"}', '{"type": "flush"}', '{"type": "setup", "input_format": "mp9"}']
)
def test_first_message_must_be_valid_setup(message: str) -> None:
    with pytest.raises(FrameError):
        connect().receive(message)


def test_audio_after_setup() -> None:
    protocol = set_up()
    assert send(protocol, type="audio", audio="AAEC") == [Audio(b"\x00\x01\x02")]
    assert send(protocol, type="audio", audio="") == [Audio(b"")]
    assert send(protocol, type="unknown") == []
    assert send(protocol, type="setup", input_format="pcm_8000") == []  # a second setup is ignored


@pytest.mark.parametrize("audio", ["A", "AAAAA", "é", "%%%%", "AA=A"])
def test_invalid_base64(audio: str) -> None:
    with pytest.raises(AudioError):
        send(set_up(), type="audio", audio=audio)


@pytest.mark.parametrize("message", ["", "[]", "{}", '{"type": 5}', '{"type": "audio", "audio": 5}', b"\xff\xfe"])
def test_invalid_messages(message: str | bytes) -> None:
    with pytest.raises(FrameError):
        set_up().receive(message)


IDS = [42, "a-string", None, 1.5, True, {"a": [1, None]}, 2**64, -(2**63) - 1]


def test_flush_id_of_any_type_is_returned() -> None:
    protocol = set_up()
    flushes = [send(protocol, type="flush", flush_id=each)[0] for each in IDS]
    assert all(isinstance(flush, Flush) for flush in flushes)
    messages = answers(protocol, *(Flushed(flush.marker) for flush in flushes))
    assert messages == [{"type": "flushed", "flush_id": each} for each in IDS]


def test_word_messages() -> None:
    assert answers(set_up(), Word("Hello", 0.1, 0.4, 0.9)) == [
        {"type": "text", "text": "Hello", "start_s": 0.1, "stream_id": None},
        {"type": "end_text", "stop_s": 0.4, "stream_id": None},
    ]


def test_step_messages_are_droppable() -> None:
    protocol = set_up()
    frames = [Vad(0.08, (0.1, 0.2, 0.3, 0.4)), Vad(0.16, (0.5, 0.6, 0.7, 0.8))]
    assert all(isinstance(answer, Droppable) for answer in set_up().send(frames[0], 0))
    first, second = answers(protocol, *frames)
    assert first == {
        "type": "step",
        "vad": [{"horizon_s": h, "inactivity_prob": p} for h, p in zip(HORIZONS, frames[0].pauses, strict=True)],
        "step_idx": 0,
        "step_duration_s": 0.08,
        "total_duration_s": 0.08,
    }
    assert (second["step_idx"], second["total_duration_s"]) == (1, 0.16)


def test_end_of_stream() -> None:
    protocol = set_up()
    assert send(protocol, type="end_of_stream") == [Finish()]
    assert send(protocol, type="flush", flush_id=1) == []  # ignored after the end
    assert answers(protocol, Ready("an-id", "m", "e", 24_000, 0.48, HORIZONS), Complete(1.0, 0)) == [
        {"type": "end_of_stream"}
    ]
    close_info = protocol.fail(None)
    assert (close_info.messages, close_info.code) == ((), 1000)


@pytest.mark.parametrize(
    ("error", "code"),
    [(AudioError("no"), 1008), (FrameError("no"), 1008), (IdleError("no"), 1008), (EngineError("secret"), 1011)],
)
def test_error_has_the_close_code(error: Exception, code: int) -> None:
    close_info = set_up().fail(error)
    (message,) = close_info.messages
    fields = json.loads(str(message))
    assert (fields["type"], fields["code"], close_info.code) == ("error", code, code)
    assert fields["message"] == ("no" if code == 1008 else "internal error")


def test_restart_sends_no_error() -> None:
    close_info = set_up().fail(RestartingError("later"))
    assert (close_info.messages, close_info.code) == ((), 1012)


@pytest.mark.parametrize(
    ("headers", "key"),
    [({"x-api-key": "a"}, "a"), ({"authorization": "Bearer b"}, "b"), ({"authorization": "Token c"}, None), ({}, None)],
)
def test_credential(headers: dict[str, str], key: str | None) -> None:
    assert connect(headers).credential() == key


def test_refusals() -> None:
    for error, status in ((AccessError("no"), 401), (CapacityError("full", 3), 503)):
        refusal = connect().refuse(error)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, json.loads(refusal.body)) == (status, {"error": str(error)})

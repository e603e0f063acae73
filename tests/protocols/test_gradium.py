"""Gradium's protocol as conversations: what its clients send, and what they are told when."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from tympan.messages import Audio, AudioFormat, Complete, Event, Finish, Flush, Flushed, Ready, SetFormat, Vad, Word
from tympan.protocols.base import Droppable, Refusal, Request, ServerInfo
from tympan.protocols.gradium import FORMATS, GradiumProtocol

HORIZONS = (0.5, 1.0, 2.0, 3.0)
OFFER = ServerInfo("a-model", "scripted", 24_000, 1_920, 0.48, HORIZONS, ("en",))


def connect(headers: dict[str, str] | None = None, *, server_info: ServerInfo = OFFER) -> GradiumProtocol:
    return GradiumProtocol(Request("/api/speech/asr", {}, headers or {}, "an-id", 1.7e9), server_info)


def ask(protocol: GradiumProtocol, **message: Any) -> list[Any]:
    """The commands, and the answers as objects."""
    actions = protocol.receive(json.dumps(message))
    return [json.loads(action) if isinstance(action, str) else action for action in actions]


def set_up() -> GradiumProtocol:
    protocol = connect()
    protocol.start()
    ask(protocol, type="setup")
    return protocol


def answers(protocol: GradiumProtocol, *events: Event) -> list[Any]:
    answered = [answer for event in events for answer in protocol.send(event, 0)]
    bare = [answer.message if isinstance(answer, Droppable) else answer for answer in answered]
    return [json.loads(str(answer)) for answer in bare]


def test_a_setup_is_answered_with_both_names_of_the_delay() -> None:
    chosen, ready = ask(connect(), type="setup", model_name="default", input_format="ulaw_8000")
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
def test_every_format_can_be_chosen(input_format: str) -> None:
    chosen, _ = ask(connect(), type="setup", input_format=input_format)
    assert chosen == SetFormat(FORMATS[input_format])
    assert FORMATS[input_format].channels == 1


@pytest.mark.parametrize(
    "json_config", [{"delay_in_frames": 48, "language": "xx", "temp": 0.5}, '{"language": "fr"}', "no json", None, 5]
)
def test_what_the_model_has_no_choice_of_is_ignored(json_config: Any) -> None:
    _, ready = ask(connect(), type="setup", json_config=json_config, client_req_id="mine", unheard_of=1)
    assert ready["delay_in_frames"] == 6


def test_a_strict_server_knows_its_model_and_the_default_one() -> None:
    strict = ServerInfo("a-model", "scripted", 24_000, 1_920, 0.48, HORIZONS, ("en",), strict_model=True)
    for name in ("default", "a-model", None):
        assert ask(connect(server_info=strict), type="setup", model_name=name)[1]["type"] == "ready"
    with pytest.raises(ParameterError):
        ask(connect(server_info=strict), type="setup", model_name="another")


@pytest.mark.parametrize(
    "message", ['{"type": "audio", "audio": "AAAA"}', '{"type": "flush"}', '{"type": "setup", "input_format": "mp9"}']
)
def test_the_first_message_must_be_a_setup_that_can_be(message: str) -> None:
    with pytest.raises(FrameError):
        connect().receive(message)


def test_audio_may_follow_at_once_in_pieces_of_any_size() -> None:
    protocol = set_up()
    assert ask(protocol, type="audio", audio="AAEC") == [Audio(b"\x00\x01\x02")]
    assert ask(protocol, type="audio", audio="") == [Audio(b"")]
    assert ask(protocol, type="unheard_of") == []
    assert ask(protocol, type="setup", input_format="pcm_8000") == []  # once is enough


@pytest.mark.parametrize("audio", ["AAA", "A A=", "é", "%%%%"])
def test_audio_that_is_no_base64(audio: str) -> None:
    with pytest.raises(AudioError):
        ask(set_up(), type="audio", audio=audio)


@pytest.mark.parametrize("message", ["", "[]", "{}", '{"type": 5}', '{"type": "audio", "audio": 5}', b"\xff\xfe"])
def test_messages_that_are_none(message: str | bytes) -> None:
    with pytest.raises(FrameError):
        set_up().receive(message)


IDS = [42, "a-string", None, 1.5, True, {"a": [1, None]}, 2**64, -(2**63) - 1]


def test_a_flush_is_answered_with_its_own_id_whatever_it_is() -> None:
    protocol = set_up()
    flushes = [ask(protocol, type="flush", flush_id=each)[0] for each in IDS]
    assert all(isinstance(flush, Flush) for flush in flushes)
    told = answers(protocol, *(Flushed(flush.marker) for flush in flushes))
    assert told == [{"type": "flushed", "flush_id": each} for each in IDS]


def test_a_word_is_its_text_without_spaces_and_its_end() -> None:
    assert answers(set_up(), Word("Hello", 0.1, 0.4, 0.9)) == [
        {"type": "text", "text": "Hello", "start_s": 0.1, "stream_id": None},
        {"type": "end_text", "stop_s": 0.4, "stream_id": None},
    ]


def test_every_frame_is_a_step_that_a_slow_reader_may_miss() -> None:
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


def test_the_end() -> None:
    protocol = set_up()
    assert ask(protocol, type="end_of_stream") == [Finish()]
    assert ask(protocol, type="flush", flush_id=1) == []  # nothing comes after
    assert answers(protocol, Ready("an-id", "m", "e", 24_000, 0.48, HORIZONS), Complete(1.0, 0)) == [
        {"type": "end_of_stream"}
    ]
    close_info = protocol.fail(None)
    assert (close_info.messages, close_info.code) == ((), 1000)


@pytest.mark.parametrize(
    ("error", "code"),
    [(AudioError("no"), 1008), (FrameError("no"), 1008), (IdleError("no"), 1008), (EngineError("secret"), 1011)],
)
def test_an_error_has_the_code_that_the_socket_closes_with(error: Exception, code: int) -> None:
    close_info = set_up().fail(error)
    (message,) = close_info.messages
    told = json.loads(str(message))
    assert (told["type"], told["code"], close_info.code) == ("error", code, code)
    assert told["message"] == ("no" if code == 1008 else "internal error")


def test_a_restart_is_no_error() -> None:
    close_info = set_up().fail(RestartingError("later"))
    assert (close_info.messages, close_info.code) == ((), 1012)


@pytest.mark.parametrize(
    ("headers", "key"),
    [({"x-api-key": "a"}, "a"), ({"authorization": "Bearer b"}, "b"), ({"authorization": "Token c"}, None), ({}, None)],
)
def test_where_the_key_is(headers: dict[str, str], key: str | None) -> None:
    assert connect(headers).credential() == key


def test_refusals() -> None:
    for error, status in ((AccessError("no"), 401), (CapacityError("full", 3), 503)):
        refusal = connect().refuse(error)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, json.loads(refusal.body)) == (status, {"error": str(error)})

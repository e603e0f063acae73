"""OpenAI's protocol as conversations: settings merge, items follow one another, a commit is answered once."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.answers import answers

from tympan.errors import AudioError, FrameError, ParameterError
from tympan.messages import Audio, AudioFormat, Complete, Event, Flush, Flushed, Ready, SetFormat, Vad, Word
from tympan.protocols.base import Request, ServerInfo
from tympan.protocols.openai.realtime import TRANSCRIPTION, OpenAIProtocol
from tympan.transcript.endpoints import AfterPause, AfterSilence

OFFER = ServerInfo("kyutai/stt-1b-en_fr", "tympan", 24_000, 1_920, 0.5, (0.5, 1.0, 2.0, 3.0), ("en", "fr"))
READY = Ready("id", "m", "e", 24_000, 0.5, OFFER.pause_horizons)
HELLO, WORLD = Word("Hello", 0.2, 0.5, 0.9), Word("world.", 0.5, 0.9, 0.8)
ID = "2b0c0f5e-0000-4000-8000-000000000000"


def connect(headers: dict[str, str] | None = None, server_info: ServerInfo = OFFER, **query: str) -> OpenAIProtocol:
    return OpenAIProtocol(Request("/v1/realtime", query, headers or {}, ID, 1_700_000_000.0), server_info)


def up(protocol: OpenAIProtocol, type: str, **fields: Any) -> list[Any]:
    """Commands as they are, messages as their fields."""
    actions = protocol.receive(json.dumps({"type": type, **fields}))
    return [json.loads(action) if isinstance(action, str) else action for action in actions]


def down(protocol: OpenAIProtocol, *events: Event) -> list[Any]:
    told = [answer for event in events for answer in answers(protocol, event)]
    return [json.loads(answer) if isinstance(answer, str) else answer for answer in told]


def kinds(messages: list[Any]) -> list[str]:
    return [message["type"] for message in messages if isinstance(message, dict)]


def update(protocol: OpenAIProtocol, **given: Any) -> dict[str, Any]:
    told = up(protocol, "session.update", session={"type": "transcription", "audio": {"input": given}})
    fields: dict[str, Any] = told[-1]["session"]["audio"]["input"]
    return fields


def quiet() -> OpenAIProtocol:
    protocol = connect()
    update(protocol, turn_detection=None)
    return protocol


COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", f"{TRANSCRIPTION}.completed"]


def test_the_session_is_told_at_once_and_until_when() -> None:
    (created,) = down(connect(), READY)
    assert created["type"] == "session.created"
    assert created["session"]["id"] == f"sess_{ID}"
    assert created["session"]["expires_at"] == 1_700_007_200
    assert created["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_settings_merge() -> None:
    protocol = connect()
    assert update(protocol, format={"type": "audio/pcm", "rate": 16_000})["format"]["rate"] == 16_000
    assert update(protocol, format={"type": "audio/pcm"})["format"]["rate"] == 16_000
    assert update(protocol, format={"type": "audio/pcmu"})["format"] == {"type": "audio/pcmu", "rate": 8_000}
    assert update(protocol, turn_detection={"type": "server_vad", "silence_duration_ms": 900}) is not None
    vad = update(protocol, turn_detection={"threshold": 0.3})["turn_detection"]
    assert (vad["type"], vad["silence_duration_ms"], vad["threshold"]) == ("server_vad", 900, 0.3)
    assert update(protocol, noise_reduction={"type": "near_field"})["turn_detection"] == vad
    assert update(protocol, turn_detection=None)["turn_detection"] is None


@pytest.mark.parametrize(
    ("detection", "rule"),
    [
        ({"type": "server_vad"}, AfterSilence(0.5)),
        ({"type": "server_vad", "silence_duration_ms": 700}, AfterSilence(0.7)),
        ({"type": "server_vad", "silence_duration_ms": "long"}, AfterSilence(0.5)),
        ({"type": "semantic_vad"}, AfterPause(0.6, 4.0)),
        ({"type": "semantic_vad", "eagerness": "high"}, AfterPause(0.5, 2.0)),
        ({"type": "semantic_vad", "eagerness": ["?"]}, AfterPause(0.6, 4.0)),
        (None, None),
    ],
)
def test_turn_detection_is_a_rule(detection: Any, rule: Any) -> None:
    protocol = connect()
    update(protocol, turn_detection=detection)
    assert protocol._endpointer.rule == rule


def test_formats_are_those_of_the_audio() -> None:
    protocol = connect()
    assert protocol.start() == AudioFormat("s16le", 24_000)
    told = up(protocol, "session.update", session={"audio": {"input": {"format": {"type": "audio/pcma"}}}})
    assert told[0] == SetFormat(AudioFormat("alaw", 8_000))
    beta = up(protocol, "transcription_session.update", session={"input_audio_format": "pcm16"})
    assert beta[0] == SetFormat(AudioFormat("s16le", 24_000))
    assert beta[1]["type"] == "transcription_session.updated"
    for wrong in ({"type": "audio/mp9"}, {"type": "audio/pcm", "rate": 1}, {"type": "audio/pcm", "rate": "fast"}):
        with pytest.raises(ParameterError):
            up(protocol, "session.update", session={"audio": {"input": {"format": wrong}}})


def test_a_commit_is_answered_once_even_when_it_is_empty() -> None:
    protocol = quiet()
    assert up(protocol, "input_audio_buffer.append", audio=base64.b64encode(b"ab").decode()) == [Audio(b"ab")]
    assert up(protocol, "input_audio_buffer.commit") == [Flush(1)]
    assert up(protocol, "input_audio_buffer.commit") == [Flush(2)]
    deltas = down(protocol, HELLO, WORLD)
    assert [delta["delta"] for delta in deltas] == ["Hello", " world."]
    first, second = down(protocol, Flushed(1)), down(protocol, Flushed(2))
    assert kinds(first) == kinds(second) == COMMITTED
    assert (first[-1]["transcript"], second[-1]["transcript"]) == ("Hello world.", "")
    assert second[0]["previous_item_id"] == first[0]["item_id"]
    assert first[-1]["usage"] == {"type": "duration", "seconds": 0.9}


def test_what_is_cleared_is_not_told_and_no_item() -> None:
    protocol = quiet()
    up(protocol, "input_audio_buffer.commit")
    up(protocol, "input_audio_buffer.clear")
    down(protocol, Vad(0.5, (0.0,) * 4))
    committed = down(protocol, HELLO, Flushed(1))
    assert committed[-1]["transcript"] == "Hello"
    assert down(protocol, WORLD) == []
    assert kinds(down(protocol, Flushed(2))) == ["input_audio_buffer.cleared"]
    up(protocol, "input_audio_buffer.commit")
    again = down(protocol, Flushed(3))
    assert again[-1]["transcript"] == ""
    assert again[0]["previous_item_id"] == committed[1]["item_id"]


def test_the_server_ends_a_turn_and_the_client_may_be_faster() -> None:
    protocol = connect()
    told = down(protocol, HELLO)
    assert kinds(told) == ["input_audio_buffer.speech_started", f"{TRANSCRIPTION}.delta"]
    silence = [Vad(round(1 + frame * 0.08, 2), (1.0, 0.5, 0.2, 0.1)) for frame in range(10)]
    assert [answer for answer in down(protocol, *silence) if isinstance(answer, Flush)] == [Flush(1)]
    up(protocol, "input_audio_buffer.commit")
    assert kinds(down(protocol, Flushed(1))) == ["input_audio_buffer.speech_stopped", *COMMITTED]
    assert kinds(down(protocol, Flushed(2))) == COMMITTED  # the client's own, empty


def test_the_rest_is_committed_at_the_end() -> None:
    protocol = quiet()
    down(protocol, HELLO)
    assert kinds(down(protocol, Complete(1.0, 1))) == COMMITTED


def test_the_beta_has_its_own_names() -> None:
    protocol = connect({"openai-beta": "realtime=v1"})
    assert kinds(down(protocol, READY)) == ["transcription_session.created"]
    up(protocol, "input_audio_buffer.commit")
    assert "conversation.item.created" in kinds(down(protocol, Flushed(1)))


def test_keys_and_subprotocols() -> None:
    assert connect({"authorization": "Bearer k"}).credential() == "k"
    browser = connect({"sec-websocket-protocol": "realtime, openai-insecure-api-key.ek_1, openai-beta.realtime-v1"})
    assert browser.credential() == "ek_1"
    assert browser.accept().subprotocol == "realtime"
    assert connect().credential() is None
    assert connect().accept().subprotocol is None


def test_another_model_is_refused_only_where_the_operator_is_strict() -> None:
    strict = ServerInfo("m", "e", 24_000, 1_920, 0.5, (), ("en",), strict_model=True)
    connect(model="whisper-1").start()
    connect(server_info=strict, model="m").start()
    with pytest.raises(ParameterError):
        connect(server_info=strict, model="whisper-1").start()
    with pytest.raises(ParameterError):
        update(connect(server_info=strict), transcription={"model": "whisper-1"})


@pytest.mark.parametrize("message", ["", "[]", "{", b"audio", '{"type": "input_audio_buffer.append", "audio": 3}'])
def test_what_is_no_event_ends_the_session(message: str | bytes) -> None:
    with pytest.raises((FrameError, AudioError)):
        connect().receive(message)


def test_unknown_events_and_fields_are_ignored() -> None:
    assert up(connect(), "response.create", response={}) == []
    assert update(connect(), surprise=1)["format"]["rate"] == 24_000


def test_vllm_s_dialect_is_known_by_its_first_message() -> None:
    protocol = connect()
    assert up(protocol, "session.update", model="mistral") == [SetFormat(AudioFormat("s16le", 16_000))]
    assert down(protocol, HELLO) == []
    assert up(protocol, "input_audio_buffer.commit") == [{"type": "transcription.delta", "delta": "Hello"}]
    assert down(protocol, WORLD) == [{"type": "transcription.delta", "delta": " world."}]
    assert up(protocol, "input_audio_buffer.commit", final=True) == [Flush(1)]
    (done,) = down(protocol, Flushed(1))
    assert (done["type"], done["text"], done["usage"]["completion_tokens"]) == ("transcription.done", "Hello world.", 2)
    assert json.loads(str(protocol.fail(FrameError("no")).messages[0])) == {
        "type": "error",
        "error": "no",
        "code": "invalid_event",
    }

"""OpenAI's realtime protocol: settings merge, items follow one another, each commit is answered once."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.protocols import SERVER_INFO, SESSION_ID, answers, decoded

from tympan.errors import FrameError, ParameterError
from tympan.messages import Audio, AudioFormat, Complete, Flush, Flushed, Ready, SetFormat, Vad, Word
from tympan.protocols.base import Request, ServerInfo
from tympan.protocols.openai.realtime import TRANSCRIPTION, OpenAIProtocol
from tympan.transcript.turns import AfterPause, AfterSilence

READY = Ready("id", "m", "e", 24_000, 0.5, SERVER_INFO.pause_horizons)
HELLO, WORLD = Word("Hello", 0.2, 0.5, 0.9), Word("world.", 0.5, 0.9, 0.8)


def connect(
    headers: dict[str, str] | None = None, server_info: ServerInfo = SERVER_INFO, **query: str
) -> OpenAIProtocol:
    return OpenAIProtocol(Request("/v1/realtime", query, headers or {}, SESSION_ID, 1_700_000_000.0), server_info)


def send(protocol: OpenAIProtocol, type: str, **fields: Any) -> list[Any]:
    return decoded(protocol.receive(json.dumps({"type": type, **fields})))


def kinds(messages: list[Any]) -> list[str]:
    return [message["type"] for message in messages if isinstance(message, dict)]


def append(protocol: OpenAIProtocol, audio: bytes = bytes(4800)) -> list[Any]:
    return send(protocol, "input_audio_buffer.append", audio=base64.b64encode(audio).decode())


def update(protocol: OpenAIProtocol, **given: Any) -> dict[str, Any]:
    updated = send(protocol, "session.update", session={"type": "transcription", "audio": {"input": given}})
    fields: dict[str, Any] = updated[-1]["session"]["audio"]["input"]
    return fields


def without_vad() -> OpenAIProtocol:
    protocol = connect()
    update(protocol, turn_detection=None)
    return protocol


COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", f"{TRANSCRIPTION}.completed"]


def test_session_created() -> None:
    (created,) = answers(connect(), READY)
    assert created["type"] == "session.created"
    assert created["session"]["id"] == f"sess_{SESSION_ID}"
    assert created["session"]["expires_at"] == 1_700_007_200
    assert created["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_settings_merge() -> None:
    protocol = connect()
    assert update(protocol, format={"type": "audio/pcm", "rate": 16_000})["format"]["rate"] == 16_000
    assert update(protocol, format={"type": "audio/pcm"})["format"]["rate"] == 16_000
    assert update(protocol, format={"type": "audio/pcmu"})["format"] == {"type": "audio/pcmu", "rate": 8_000}
    assert update(protocol, turn_detection={"type": "server_vad", "silence_duration_ms": 900}) is not None
    vad = update(protocol, turn_detection={"threshold": 0.3, "prefix_padding_ms": 300})["turn_detection"]
    assert vad == {"type": "server_vad", "silence_duration_ms": 900}, "nothing that has no effect"
    assert list(protocol.unsupported) == ["threshold", "prefix_padding_ms"]
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
def test_turn_detection(detection: Any, rule: Any) -> None:
    protocol = connect()
    update(protocol, turn_detection=detection)
    assert protocol._endpointer.rule == rule


@pytest.mark.parametrize(
    ("detection", "effective"),
    [
        ({"silence_duration_ms": 10}, {"type": "server_vad", "silence_duration_ms": 300}),
        ({"silence_duration_ms": 800, "create_response": True}, {"type": "server_vad", "silence_duration_ms": 800}),
        ({"type": "semantic_vad", "eagerness": "enormous"}, {"type": "semantic_vad", "eagerness": "auto"}),
        ({"type": "semantic_vad", "interrupt_response": True}, {"type": "semantic_vad", "eagerness": "auto"}),
        ({"type": "semantic_vad", "eagerness": "low"}, {"type": "semantic_vad", "eagerness": "low"}),
    ],
)
def test_answer_has_effective_turn_detection(detection: dict[str, Any], effective: dict[str, Any]) -> None:
    assert update(connect(), turn_detection=detection)["turn_detection"] == effective


def test_audio_formats() -> None:
    protocol = connect()
    assert protocol.start() == AudioFormat("s16le", 24_000)
    updated = send(protocol, "session.update", session={"audio": {"input": {"format": {"type": "audio/pcma"}}}})
    assert updated[0] == SetFormat(AudioFormat("alaw", 8_000))
    beta = send(protocol, "transcription_session.update", session={"input_audio_format": "pcm16"})
    assert beta[0] == SetFormat(AudioFormat("s16le", 24_000))
    assert beta[1]["type"] == "transcription_session.updated"
    for wrong in ({"type": "audio/mp9"}, {"type": "audio/pcm", "rate": 1}, {"type": "audio/pcm", "rate": "fast"}):
        with pytest.raises(ParameterError):
            send(protocol, "session.update", session={"audio": {"input": {"format": wrong}}})


def test_commit_is_answered_once() -> None:
    protocol = without_vad()
    assert send(protocol, "input_audio_buffer.append", audio=base64.b64encode(b"ab").decode()) == [Audio(b"ab")]
    assert send(protocol, "input_audio_buffer.commit") == [Flush(1)]
    append(protocol)
    assert send(protocol, "input_audio_buffer.commit") == [Flush(2)]
    deltas = answers(protocol, HELLO, WORLD)
    assert [delta["delta"] for delta in deltas] == ["Hello", " world."]
    first, second = answers(protocol, Flushed(1)), answers(protocol, Flushed(2))
    assert kinds(first) == kinds(second) == COMMITTED
    assert (first[-1]["transcript"], second[-1]["transcript"]) == ("Hello world.", "")
    assert second[0]["previous_item_id"] == first[0]["item_id"]
    assert first[-1]["usage"] == {"type": "duration", "seconds": 0.9}


def test_cleared_audio_makes_no_item() -> None:
    protocol = without_vad()
    append(protocol)
    send(protocol, "input_audio_buffer.commit")
    append(protocol)
    send(protocol, "input_audio_buffer.clear")
    answers(protocol, Vad(0.5, (0.0,) * 4))
    committed = answers(protocol, HELLO, Flushed(1))
    assert committed[-1]["transcript"] == "Hello"
    assert answers(protocol, WORLD) == []
    assert kinds(answers(protocol, Flushed(2))) == ["input_audio_buffer.cleared"]
    append(protocol)
    send(protocol, "input_audio_buffer.commit")
    empty = answers(protocol, Flushed(3))
    assert empty[-1]["transcript"] == ""
    assert empty[0]["previous_item_id"] == committed[1]["item_id"]


def test_client_commits_before_the_server() -> None:
    protocol = connect()
    assert kinds(answers(protocol, HELLO)) == ["input_audio_buffer.speech_started", f"{TRANSCRIPTION}.delta"]
    silence = [Vad(round(1 + frame * 0.08, 2), (1.0, 0.5, 0.2, 0.1)) for frame in range(10)]
    assert [answer for answer in answers(protocol, *silence) if isinstance(answer, Flush)] == [Flush(1)]
    append(protocol)
    send(protocol, "input_audio_buffer.commit")
    assert kinds(answers(protocol, Flushed(1))) == ["input_audio_buffer.speech_stopped", *COMMITTED]
    assert kinds(answers(protocol, Flushed(2))) == COMMITTED  # the empty item of the client's commit


def test_remaining_words_are_committed_at_the_end() -> None:
    protocol = without_vad()
    answers(protocol, HELLO)
    assert kinds(answers(protocol, Complete(1.0, 1))) == COMMITTED


def test_beta_event_names() -> None:
    protocol = connect({"openai-beta": "realtime=v1"})
    assert kinds(answers(protocol, READY)) == ["transcription_session.created"]
    append(protocol)
    send(protocol, "input_audio_buffer.commit")
    assert "conversation.item.created" in kinds(answers(protocol, Flushed(1)))


def test_credential_and_subprotocol() -> None:
    assert connect({"authorization": "Bearer k"}).credential() == "k"
    browser = connect({"sec-websocket-protocol": "realtime, openai-insecure-api-key.ek_1, openai-beta.realtime-v1"})
    assert browser.credential() == "ek_1"
    assert browser.accept().subprotocol == "realtime"
    assert connect().credential() is None
    assert connect().accept().subprotocol is None


def test_strict_model() -> None:
    strict = ServerInfo("m", "e", 24_000, 1_920, 0.5, (), ("en",), strict_model=True)
    connect(model="whisper-1").start()
    connect(server_info=strict, model="m").start()
    with pytest.raises(ParameterError):
        connect(server_info=strict, model="whisper-1").start()
    with pytest.raises(ParameterError):
        update(connect(server_info=strict), transcription={"model": "whisper-1"})


@pytest.mark.parametrize("message", ["", "[]", "{", b"audio"])
def test_invalid_messages(message: str | bytes) -> None:
    with pytest.raises(FrameError):
        connect().receive(message)


@pytest.mark.parametrize(
    "audio", [3, None, "A", "é", "%%%%", ["AAAA"], "data:audio/pcm;base64,%", "AA=A", "!" * 100_000]
)
def test_invalid_base64_is_an_error_event(audio: object) -> None:
    """It names the client's event, and the session continues."""
    protocol = connect()
    (event,) = send(protocol, "input_audio_buffer.append", audio=audio, event_id="mine")
    assert (event["type"], event["error"]["event_id"]) == ("error", "mine")
    assert (event["error"]["type"], event["error"]["param"]) == ("invalid_request_error", "audio")
    assert "base64" in event["error"]["message"]
    assert append(protocol, b"ab") == [Audio(b"ab")]
    (without_id,) = send(protocol, "input_audio_buffer.append", audio="!")
    assert without_id["error"]["event_id"] is None


def test_commit_without_audio_is_an_error_event() -> None:
    protocol = without_vad()
    for number in (1, 2):
        (event,) = send(protocol, "input_audio_buffer.commit", event_id="c1")
        assert (event["type"], event["error"]["event_id"]) == ("error", "c1")
        assert event["error"]["code"] == "input_audio_buffer_commit_empty"
        append(protocol)
        assert send(protocol, "input_audio_buffer.commit") == [Flush(number)]
    append(protocol)
    send(protocol, "input_audio_buffer.clear")
    assert kinds(send(protocol, "input_audio_buffer.commit")) == ["error"], "the buffer was cleared"
    append(protocol, b"")
    assert kinds(send(protocol, "input_audio_buffer.commit")) == ["error"]


def test_unknown_events_and_fields_are_ignored() -> None:
    assert send(connect(), "response.create", response={}) == []
    assert update(connect(), surprise=1)["format"]["rate"] == 24_000


def test_vllm_dialect() -> None:
    protocol = connect()
    assert send(protocol, "session.update", model="mistral") == [SetFormat(AudioFormat("s16le", 16_000))]
    assert answers(protocol, HELLO) == []
    assert send(protocol, "input_audio_buffer.commit") == [{"type": "transcription.delta", "delta": "Hello"}]
    assert answers(protocol, WORLD) == [{"type": "transcription.delta", "delta": " world."}]
    assert send(protocol, "input_audio_buffer.commit", final=True) == [Flush(1)]
    (done,) = answers(protocol, Flushed(1))
    assert (done["type"], done["text"], done["usage"]["completion_tokens"]) == ("transcription.done", "Hello world.", 2)
    assert json.loads(str(protocol.fail(FrameError("no")).messages[0])) == {
        "type": "error",
        "error": "no",
        "code": "invalid_event",
    }

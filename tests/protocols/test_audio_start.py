"""Files that are sent where raw samples are expected: each protocol warns in its own form, or takes a WAV's format."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from support.kyutai_wire import message
from support.protocols import LINEAR16, SERVER_INFO, SESSION_ID, decoded

from tympan.messages import Audio, AudioFormat, SetFormat
from tympan.protocols.audio_start import AudioStart
from tympan.protocols.base import Request
from tympan.server.app import PROTOCOLS

HEADERS = {
    "WAV": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "Ogg": b"OggS\x00\x02",
    "WebM": b"\x1aE\xdf\xa3\x01\x00",
    "MP3": b"ID3\x04\x00\x00",
    "FLAC": b"fLaC\x00\x00",
}
RAW = AudioFormat("s16le", 16_000)


def opened(path: str, query: dict[str, str]) -> Any:
    protocol: Any = PROTOCOLS[path](Request(path, query, {}, SESSION_ID), SERVER_INFO)
    protocol.start()
    return protocol


def as_json(kind: str, data: bytes) -> str:
    return json.dumps({"type": kind, "audio": base64.b64encode(data).decode()})


def native(data: bytes, **query: str) -> Sequence[Any]:
    return decoded(opened("/v1/stream", query).receive(data))


def gradium(data: bytes, **setup: str) -> Sequence[Any]:
    protocol = opened("/api/speech/asr", {})
    protocol.receive(json.dumps({"type": "setup", **setup}))
    return decoded(protocol.receive(as_json("audio", data)))


def openai(data: bytes, *updates: dict[str, Any]) -> Sequence[Any]:
    protocol = opened("/v1/realtime", {})
    for update in updates:
        protocol.receive(json.dumps({"type": "session.update", **update}))
    return decoded(protocol.receive(as_json("input_audio_buffer.append", data)))


DECLARED = {"session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24_000}}}}}
VLLM = {"model": "m"}


@pytest.mark.parametrize("name", HEADERS)
def test_warning_of_each_protocol(name: str) -> None:
    data = HEADERS[name]

    def check(actions: Sequence[Any], **fields: str) -> None:
        warning, audio = actions
        assert audio == Audio(data)
        text = json.dumps(warning)
        assert f"like a {name}" in text
        assert "raw samples" in text
        assert {key: warning[key] for key in fields} == fields

    check(native(data, encoding="s16le", events="word"), type="warning", code="container")
    check(native(data, sample_rate="16000", events="word"), type="warning", code="container")
    simple = native(data, encoding="s16le")
    assert (simple[0]["text"], simple[0]["final"]) == ("", False), "a message that adds no text"
    check(simple)
    for path in ("/v1/listen", "/v2/listen"):
        check(decoded(opened(path, LINEAR16).receive(data)), type="Warning", code="CONTAINER")
    check(gradium(data, input_format="pcm_16000"), type="warning", code="container")
    (event, audio) = openai(data, DECLARED)
    assert (event["type"], event["error"]["type"]) == ("error", "invalid_request_error")
    assert (event["error"]["code"], audio) == ("container", Audio(data))
    if name != "WAV":
        check(openai(data, VLLM), type="error", code="invalid_audio")
    packed, audio = opened("/api/asr-streaming", {}).receive(message(type="Audio", pcm=data))
    fields = msgspec.msgpack.decode(packed)
    assert (fields["type"], audio) == ("Error", Audio(data))
    assert f"like a {name}" in fields["message"]


def test_header_of_a_wav_sets_the_format() -> None:
    data = HEADERS["WAV"]
    expected = [SetFormat(AudioFormat("auto")), Audio(data)]
    assert native(data) == expected
    assert native(data, channels="2") == [SetFormat(AudioFormat("auto", channels=2)), Audio(data)]
    assert gradium(data) == expected
    assert openai(data) == expected
    assert openai(data, {"session": {"audio": {"input": {"turn_detection": None}}}}) == expected
    assert openai(data, VLLM) == [SetFormat(AudioFormat("auto", 16_000)), Audio(data)]


def test_containers_are_not_examined() -> None:
    data = HEADERS["Ogg"]
    assert native(data, encoding="auto") == [Audio(data)]
    assert gradium(data, input_format="opus") == [Audio(data)]
    assert decoded(opened("/v1/listen", {}).receive(data)) == [Audio(data)]
    assert opened("/api/asr-streaming", {}).receive(message(type="OggOpus", data=data))[-1] == Audio(data)


def test_only_the_first_bytes_are_examined() -> None:
    protocol = opened("/v1/stream", {"encoding": "s16le"})
    assert protocol.receive(bytes(2)) == (Audio(bytes(2)),)
    assert protocol.receive(HEADERS["FLAC"]) == (Audio(HEADERS["FLAC"]),)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("is_declared", [True, False])
def test_header_in_pieces(name: str, is_declared: bool) -> None:
    """No byte is lost or sent twice, wherever the messages are split."""
    start = AudioStart(RAW, is_declared, lambda sentence: sentence)
    data = HEADERS[name] + bytes(range(40))
    actions = [action for byte in data for action in start.receive(bytes([byte]))]
    assert b"".join(action.data for action in actions if isinstance(action, Audio)) == data
    if name == "WAV" and not is_declared:
        assert actions[0] == SetFormat(AudioFormat("auto", 16_000))
    else:
        assert isinstance(actions[0], str)
    assert sum(not isinstance(action, Audio) for action in actions) == 1


@pytest.mark.parametrize(
    "data", [b"RIF" + bytes(9), b"O" + bytes(3), b"\x1aE\xdf" + bytes(2), bytes(12), b"RIFF1234AVI LIST"]
)
def test_samples_that_only_resemble_a_header(data: bytes) -> None:
    start = AudioStart(RAW, False, lambda sentence: sentence)
    actions = [action for byte in data for action in start.receive(bytes([byte]))]
    assert b"".join(action.data for action in actions if isinstance(action, Audio)) == data
    assert sum(isinstance(action, str) for action in actions) == data.startswith(b"RIFF")

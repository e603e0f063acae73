"""Every protocol treats any message as valid or as an error of the client, and repeats its recorded conversations."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden import GOLDEN, replay
from support.protocols import LINEAR16, SERVER_INFO, SESSION_ID

from tympan.errors import (
    AccessError,
    AudioError,
    CapacityError,
    EngineError,
    FrameError,
    IdleError,
    QuotaError,
    RequestError,
    RestartingError,
    SessionTooLongError,
    SlowReaderError,
    TooBigError,
)
from tympan.messages import Audio, Complete, Event, Finish, Flush, Flushed, Partial, Ready, Vad, Word
from tympan.protocols.base import CloseInfo, Refusal, Request, ServerProtocol
from tympan.server.app import PROTOCOLS

CLASSES: dict[str, Any] = {make.name: make for make in PROTOCOLS.values()}  # type: ignore[attr-defined]
PATHS = {make.name: path for path, make in PROTOCOLS.items()}  # type: ignore[attr-defined]
QUERIES = {"deepgram": {**LINEAR16, "interim_results": "true", "vad_events": "true"}}
QUERIES["flux"] = {**QUERIES["deepgram"], "eager_eot_threshold": "0.4"}

KINDS = [
    *("EOS", "flush", "keepalive", "finish", "Audio", "OggOpus", "Marker", "Init", "setup", "audio", "end_of_stream"),
    *("KeepAlive", "Finalize", "CloseStream", "Configure", "ForceEndTurn", "session.update"),
    *("transcription_session.update", "input_audio_buffer.append", "input_audio_buffer.commit"),
    *("input_audio_buffer.clear", "nonsense"),
]
FIELDS = [
    *("id", "pcm", "data", "audio", "channel", "flush_id", "input_format", "model_name", "model", "session", "final"),
    *("thresholds", "keyterms", "json_config", "turn_detection", "input_audio_format", "format", "rate", "include"),
    *("eot_threshold", "silence_duration_ms", "eagerness", "transcription", "input"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["AAAA", "semantic_vad", "server_vad", "audio/pcm", "pcm", "wav", "g711_ulaw"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*FIELDS, "type"]), inner, max_size=4),
    max_leaves=12,
)
MAPS = st.fixed_dictionaries({"type": st.sampled_from(KINDS) | VALUES}, optional=dict.fromkeys(FIELDS, VALUES))


def as_json(value: object) -> str:
    return json.dumps(value)


def as_msgpack(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc1"


WIRE = MAPS.map(as_json) | MAPS.map(as_msgpack) | st.text(max_size=30) | st.binary(max_size=60)
TIMES = st.floats(0, 100)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Word, st.text(max_size=5), TIMES, TIMES, st.floats(0, 1)),
    st.builds(Partial, st.text(max_size=5), TIMES),
    st.builds(Vad, TIMES, st.tuples(*[st.floats(0, 1)] * 4)),
)


def opened(name: str) -> ServerProtocol:
    request = Request(PATHS[name], QUERIES.get(name, {}), {}, SESSION_ID, 1.7e9)
    protocol: ServerProtocol = CLASSES[name](request, SERVER_INFO)
    protocol.start()
    return protocol


def converse(protocol: ServerProtocol, turns: list[str | bytes | Event]) -> CloseInfo:
    """Play a session with messages and events, until `Finish` or an invalid message, and answer every flush."""
    flushes: list[int] = []
    protocol.send(Ready("id", "m", "e", 24_000, 0.48, SERVER_INFO.pause_horizons), 0)
    for turn in turns:
        if isinstance(turn, str | bytes):
            try:
                actions = list(protocol.receive(turn))
            except RequestError as error:
                return protocol.fail(error)
        else:
            actions = list(protocol.send(turn, 0))
        assert all(isinstance(action.data, bytes) for action in actions if isinstance(action, Audio))
        flushes += [action.marker for action in actions if isinstance(action, Flush)]
        while flushes and len(turns) % 2:
            protocol.send(Flushed(flushes.pop(0)), 0)
        if any(isinstance(action, Finish) for action in actions):
            break
    for marker in flushes:
        protocol.send(Flushed(marker), 0)
    protocol.send(Complete(1.0, 0), 0)
    return protocol.fail(None)


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=50, deadline=None)
@given(turns=st.lists(WIRE | EVENTS, max_size=12))
def test_random_conversations(name: str, turns: list[str | bytes | Event]) -> None:
    assert converse(opened(name), turns).code in (1000, 1003, 1007, 1008, 1009)


@pytest.mark.parametrize("name", CLASSES)
def test_deep_nesting(name: str) -> None:
    for bomb in ("[" * 100_000, '{"type":' * 50_000, '{"type":"flush","x":' + "[" * 100_000, b"\x91" * 100_000):
        converse(opened(name), [bomb])


ECHOED = {
    "gradium": '{"type": "flush", "flush_id": NESTED}',
    "openai": '{"type": "session.update", "session": {"turn_detection": {"x": NESTED}}}',
}


@pytest.mark.parametrize("name", ECHOED)
def test_nesting_of_echoed_values(name: str) -> None:
    ends = set()
    for depth in range(850, 1000):
        nested = ECHOED[name].replace("NESTED", "[" * depth + "]" * depth)
        setup: list[str | bytes | Event] = ['{"type": "setup"}'] if name == "gradium" else []
        ends.add(converse(opened(name), [*setup, nested]).code)
    assert ends <= {1000, 1003, 1008}
    assert len(ends) == 2


@pytest.mark.parametrize("name", CLASSES)
def test_invalid_utf8_in_message(name: str) -> None:
    for packed in (b'{"type": "set\xfcp"}', b"\x81\xa4type\xa2\xff\xfe"):
        assert converse(opened(name), [packed]).code in (1000, 1003, 1008)


CODES = {
    AudioError: {1007, 1008},
    FrameError: {1003, 1008},
    IdleError: {1008, 1011},
    SessionTooLongError: {1008},
    QuotaError: {1008},
    TooBigError: {1009},
    RestartingError: {1012},
    SlowReaderError: {1013},
    EngineError: {1011},
    RuntimeError: {1011},
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kind", CODES)
def test_close_codes(name: str, kind: type[Exception]) -> None:
    close_info = opened(name).fail(kind("é" * 200))
    assert close_info.code in CODES[kind]
    assert len(close_info.close_reason.encode()) <= 123
    secret = any("é" in str(message) for message in close_info.messages) or "é" in close_info.reason
    assert not (secret and kind in (EngineError, RuntimeError)), "internal errors must reveal nothing"


@pytest.mark.parametrize("name", CLASSES)
def test_refusals(name: str) -> None:
    full, spent = CapacityError("full", 3), QuotaError("spent", 3)
    for error, statuses in ((AccessError("no"), {401}), (full, {429, 503}), (spent, {429})):
        refusal = opened(name).refuse(error)
        if isinstance(refusal, Refusal):
            assert refusal.status in statuses
            assert refusal.headers["content-type"] == "application/json"
            assert refusal.headers.get("retry-after") == (None if isinstance(error, AccessError) else "3")
        else:
            assert refusal.code == (1013 if error is full else 1008)


RECORDINGS = sorted(GOLDEN.rglob("*.jsonl"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: str(path.relative_to(GOLDEN)))
def test_recorded_conversations(path: Any) -> None:
    assert replay(path, CLASSES[path.parent.name]) > 3


def test_every_protocol_has_recordings() -> None:
    assert {path.parent.name for path in RECORDINGS} == set(CLASSES)

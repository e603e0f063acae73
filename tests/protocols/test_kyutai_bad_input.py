"""Invalid messages of Kyutai's protocol raise `FrameError` and no other exception."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kyutai_wire import audio, message
from support.protocols import SERVER_INFO

from tympan.errors import FrameError, RequestError
from tympan.messages import Audio, Flush, Reset, SetFormat
from tympan.protocols.base import Request
from tympan.protocols.kyutai import KyutaiProtocol


def protocol() -> KyutaiProtocol:
    return KyutaiProtocol(Request("/api/asr-streaming", {}, {}), SERVER_INFO)


NESTED = b"\x82\xa4type\xa5Audio\xa1x" + b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\xff" * 20,
        msgspec.msgpack.encode([1, 2]),
        message(),
        message(type="Nonsense"),
        message(type="Ready"),
        message(type=5),
        message(pcm=[0.0]),
        message(type="Audio"),
        message(type="Audio", pcm="loud"),
        message(type="Audio", pcm=None),
        message(type="OggOpus", data="text"),
        message(type="OggOpus", data=[300]),
        b"\x81\xa4type\xa2\xff\xff",
        b"\x82\xa4type\xa5Audio\xa3pcm\xdd\xff\xff\xff\xff",
        audio(np.zeros(100))[:-1],
        audio(np.zeros(100)) + b"\x00",
        NESTED,
    ],
)
def test_invalid_message(packed: bytes) -> None:
    with pytest.raises(FrameError):
        protocol().receive(packed)


def test_unknown_type_is_truncated_in_error() -> None:
    with pytest.raises(FrameError) as caught:
        protocol().receive(message(type="x" * 10_000))
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("id", [None, 1.0, True, "1", 2**63, [1]])
def test_marker_with_invalid_id(id: object) -> None:
    with pytest.raises(FrameError, match="64-bit"):
        protocol().receive(message(type="Marker", id=id))


def test_marker_without_id() -> None:
    with pytest.raises(FrameError, match="64-bit"):
        protocol().receive(message(type="Marker"))


packable = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
near_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["Audio", "OggOpus", "Marker", "Init"]) | packable},
    optional={"pcm": st.lists(st.floats()) | packable, "data": packable, "id": packable},
)


@given(st.lists(st.text() | st.binary() | (near_messages | packable).map(msgspec.msgpack.encode), max_size=8))
def test_random_messages(items: list[Any]) -> None:
    opened = protocol()
    for item in items:
        with suppress(RequestError):
            for action in opened.receive(item):
                assert isinstance(action, bytes | Audio | SetFormat | Flush | Reset)


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_damaged_audio(damage: bytes, at: int, cut: int) -> None:
    packed = bytearray(audio(np.zeros(8)))
    packed[at : at + len(damage)] = damage
    with suppress(RequestError):
        protocol().receive(bytes(packed[: len(packed) - cut]))

"""Audio in MessagePack: every encoding that clients use, and invalid values."""

from __future__ import annotations

import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kyutai_wire import array_header, float_array

from tympan.errors import FrameError
from tympan.protocols.msgpack_audio import decode_bytes, decode_samples


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


def f32le(*samples: float) -> bytes:
    return struct.pack(f"<{len(samples)}f", *samples)


@pytest.mark.parametrize("tag", [0xCA, 0xCB])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 1920, 65_535, 65_536])
def test_packed_floats(tag: int, count: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, count).astype("<f4")
    assert decode_samples(float_array(samples, tag)) == samples.tobytes()


def test_bin() -> None:
    for count in (0, 4, 300, 70_000):
        assert decode_samples(raw(bytes(count))) == bytes(count)
    assert decode_samples(raw(f32le(0.5, -0.5))) == f32le(0.5, -0.5)


def test_integers_and_mixed_arrays() -> None:
    assert decode_samples(raw([0] * 30)) == f32le(*[0.0] * 30)
    assert decode_samples(raw([1, -1, 0, 0.5])) == f32le(1, -1, 0, 0.5)
    single, double = b"\xca" + struct.pack(">f", 0.25), b"\xcb" + struct.pack(">d", 0.5)
    assert decode_samples(msgspec.Raw(array_header(3) + single + double + single)) == f32le(0.25, 0.5, 0.25)


def test_mixed_array_that_looks_packed() -> None:
    """Nine 32-bit floats are as long as five 64-bit floats; only the tags distinguish them."""
    singles = [struct.unpack(">f", b"\xcb\xcb\xcb\xcb")[0]] * 9
    assert decode_samples(float_array(singles)) == f32le(*singles)
    doubles = [struct.unpack(">d", b"\xca" * 8)[0]] * 5
    with np.errstate(over="ignore"):
        assert decode_samples(float_array(doubles, 0xCB)) == np.array(doubles).astype("<f4").tobytes()


def test_nan_and_infinity() -> None:
    decoded = np.frombuffer(decode_samples(float_array([math.nan, math.inf, 1e300], 0xCB)), "<f4")
    assert np.isnan(decoded[0])
    assert np.isinf(decoded[1:]).all()


@pytest.mark.parametrize("value", [None, True, 1.0, "loud", {"a": 1}, ["a"], [None], [[0.5]], [True], [0.5, b""]])
def test_invalid_values(value: object) -> None:
    with pytest.raises(FrameError, match="pcm must be an array of numbers"):
        decode_samples(raw(value))
    with pytest.raises(FrameError, match="data must be bytes"):
        decode_bytes(raw(value))


def test_missing_field() -> None:
    for take in (decode_samples, decode_bytes):
        with pytest.raises(FrameError):
            take(msgspec.Raw())


def test_decode_bytes() -> None:
    data = bytes(range(256))
    assert decode_bytes(raw(data)) == data
    assert decode_bytes(raw(list(data))) == data
    for wrong in ([256], [-1], [1 << 40], [0.5]):
        with pytest.raises(FrameError):
            decode_bytes(raw(wrong))


@given(st.lists(st.one_of(st.floats(width=32), st.integers(-(2**63), 2**64 - 1)), max_size=40))
def test_result_equals_numpy_conversion(values: list[float | int]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array([float(value) for value in values], np.float64).astype("<f4")
    decoded = np.frombuffer(decode_samples(raw(values)), "<f4")
    np.testing.assert_array_equal(decoded, expected)

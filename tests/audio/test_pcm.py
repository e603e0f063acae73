"""Raw samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.audio_decoding import cut, cuts, decoded
from support.audio_encoding import voice

from tympan.audio.decoder import open_decoder
from tympan.audio.format import RAW_ENCODINGS
from tympan.audio.pcm import SAMPLE_BYTES, samples_from_bytes
from tympan.audio.samples import as_float, as_integers, join_as_float
from tympan.messages import AudioFormat


@given(
    st.sampled_from(RAW_ENCODINGS),
    st.sampled_from([8_000, 24_000, 44_100, 48_000]),
    st.integers(1, 2),
    st.binary(max_size=3_000),
    cuts(),
)
def test_any_split(encoding: str, rate: int, channels: int, data: bytes, places: list[int]) -> None:
    format = AudioFormat(encoding, rate, channels)
    whole = decoded([data], format)
    np.testing.assert_array_equal(decoded(cut(data, places), format), whole)
    assert np.isfinite(whole).all()
    assert len(whole) == pytest.approx(len(data) // (SAMPLE_BYTES[encoding] * channels) * 24_000 / rate, abs=1.5)


@given(st.sampled_from(RAW_ENCODINGS), st.binary(max_size=200), cuts())
def test_no_resampling(encoding: str, data: bytes, places: list[int]) -> None:
    decoder = open_decoder(AudioFormat(encoding, 24_000, 1))
    received = samples = 0
    for piece in cut(data, places):
        received += len(piece)
        samples += sum(len(block) for block in decoder.decode(piece))
        assert samples == received // SAMPLE_BYTES[encoding]


def test_16_bits() -> None:
    data = np.array([0, 1, -1, 32767, -32768, 16384], "<i2").tobytes()
    expected = [[0], [1 / 32768], [-1 / 32768], [32767 / 32768], [-1], [0.5]]
    assert decoded([data], AudioFormat("s16le", 24_000, 1)).tolist() == expected


@pytest.mark.parametrize(
    ("format", "kept"),
    [
        (AudioFormat("s16le", 24_000, 2), True),
        (AudioFormat("s16le", 24_000, 2, mixed=True), False),
        (AudioFormat("s16le", 16_000, 1), False),
    ],
)
def test_16_bits_stay_integers(format: AudioFormat, kept: bool) -> None:
    blocks = list(open_decoder(format).decode(bytes(3_840)))
    assert [block.dtype for block in blocks] == [np.int16 if kept else np.float32]


@given(st.lists(st.integers(-(1 << 15), (1 << 15) - 1)))
def test_integers_to_floats_and_back(values: list[int]) -> None:
    integers = np.array(values, np.int16)
    floats = as_float(integers)
    assert floats.tolist() == [value / 32768 for value in values]
    assert as_integers(floats).tolist() == as_integers(integers).tolist() == values
    into = np.empty((3, len(values)), np.float32)
    for frames in ([integers] * 3, [floats] * 3, [integers, floats, integers]):
        into.fill(np.nan)
        join_as_float(frames, into)
        assert into.tolist() == [floats.tolist()] * 3


def test_integers_are_clipped() -> None:
    assert as_integers(np.array([1.5, 1.0, -1e6, 0.4 / 32768], np.float32)).tolist() == [32767, 32767, -32768, 0]


def test_two_channels() -> None:
    data = np.array([1, 2, 3, 4], "<f4").tobytes()
    assert decoded([data], AudioFormat("f32le", 24_000, 2)).tolist() == [[1, 2], [3, 4]]


def test_nan_and_loud_floats() -> None:
    data = np.array([math.nan, math.inf, -math.inf, 1.5, -3e38], "<f4").tobytes()
    assert decoded([data], AudioFormat("f32le", 24_000, 1))[:, 0].tolist() == [0, 0, 0, 1.5, -1e6]


def test_truncated_sample() -> None:
    assert len(decoded([b"\0\0\0\0\1"], AudioFormat("s16le", 24_000, 2))) == 1


@pytest.mark.parametrize(
    ("encoding", "code", "sample"),
    # The ends and the middle of the tables in ITU-T G.711, on the 16-bit scale.
    [
        ("mulaw", 0x00, -32124),
        ("mulaw", 0x80, 32124),
        ("mulaw", 0xFF, 0),
        ("mulaw", 0x7F, 0),
        ("mulaw", 0xFE, 8),
        ("mulaw", 0xEF, 132),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x2A, -32256),
        ("alaw", 0xC5, 264),
    ],
)
def test_telephone_codes(encoding: str, code: int, sample: int) -> None:
    assert samples_from_bytes(bytes([code]), encoding).tolist() == [sample / 32768]


@pytest.mark.parametrize(("encoding", "step"), [("mulaw", 0.04), ("alaw", 0.04)])
def test_telephone_codes_are_monotonic(encoding: str, step: float) -> None:
    table = np.unique(samples_from_bytes(bytes(range(256)), encoding))
    assert len(table) in (255, 256)
    assert np.diff(table).max() < step
    np.testing.assert_array_equal(table, -table[::-1])


def test_blocks() -> None:
    decoder = open_decoder(AudioFormat("mulaw", 8_000, 1))
    blocks = [len(block) for block in decoder.decode(bytes(8_000 * 20))]
    assert max(blocks) <= 25_000
    assert len(blocks) == 20


def test_rest_comes_with_the_next_call() -> None:
    data = (voice(3, 24_000) * 32767).astype("<i2").tobytes()
    decoder = open_decoder(AudioFormat("s16le", 24_000, 1))
    first = next(decoder.decode(data))
    rest = list(decoder.finish())
    np.testing.assert_array_equal(
        as_float(np.concatenate([first, *rest])), decoded([data], AudioFormat("s16le", 24_000, 1))
    )


def test_close_twice() -> None:
    decoder = open_decoder(AudioFormat("s16le", 24_000, 1))
    decoder.close()
    decoder.close()


def test_mixed_channels() -> None:
    stereo = np.array([[0.5, -0.5], [1.0, 0.0]], np.float32)
    decoder = open_decoder(AudioFormat("f32le", 24_000, channels=2, mixed=True), 24_000)
    assert np.concatenate([*decoder.decode(stereo.tobytes()), *decoder.finish()]).tolist() == [[0.0], [0.5]]

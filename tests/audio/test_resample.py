"""Resampling with state."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.audio.resample import Resampler

_RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_099, 44_100, 48_000]


@given(
    st.sampled_from(_RATES),
    st.integers(1, 2),
    st.integers(0, 5_000),
    st.lists(st.integers(0, 5_000), max_size=8),
)
def test_any_split(rate: int, channels: int, length: int, places: list[int]) -> None:
    signal = np.random.default_rng(length).standard_normal((length, channels)).astype(np.float32)
    whole, pieces = Resampler(rate, 24_000, channels), Resampler(rate, 24_000, channels)
    expected = [whole.push(signal), whole.finish()]
    edges = [0, *sorted(min(place, length) for place in places), length]
    actual = [pieces.push(signal[a:b]) for a, b in pairwise(edges)]
    actual.append(pieces.finish())
    np.testing.assert_array_equal(np.concatenate(actual), np.concatenate(expected))


@pytest.mark.parametrize("rate", _RATES)
def test_tone(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)[:, np.newaxis]
    resampler = Resampler(rate, 24_000, 1)
    out = np.concatenate([resampler.push(tone), resampler.finish()])[:, 0]
    expected = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    assert abs(len(out) - 24_000) <= 1
    middle = slice(2_000, 22_000)
    np.testing.assert_allclose(out[middle], expected[middle], atol=1e-3)


def test_equal_rates() -> None:
    signal = np.ones((5, 2), np.float32)
    resampler = Resampler(24_000, 24_000, 2)
    assert resampler.push(signal) is signal
    assert resampler.finish().shape == (0, 2)


@pytest.mark.parametrize("rate", _RATES)
def test_flush(rate: int) -> None:
    """Flushed samples are those of a signal that ends there; the others are those of one that was never flushed."""
    signal = np.random.default_rng(rate).standard_normal((2 * rate, 2)).astype(np.float32) * 0.1
    never = Resampler(rate, 24_000, 2)
    expected = np.concatenate([never.push(signal), never.finish()])
    resampler, out = Resampler(rate, 24_000, 2), np.zeros((0, 2), np.float32)
    for start, stop in pairwise([0, rate // 50, rate // 3 + 7, rate, rate + 1, rate + rate // 3, 2 * rate]):
        followed = resampler.push(signal[start:stop])
        np.testing.assert_array_equal(followed, expected[len(out) : len(out) + len(followed)])
        out = np.concatenate([out, followed])
        flushed = resampler.flush()
        out = np.concatenate([out, flushed])
        assert len(out) == int(stop * 24_000 / rate + 0.5)
        assert len(resampler.flush()) == 0
        ended = Resampler(rate, 24_000, 2)
        whole = np.concatenate([ended.push(signal[:stop]), ended.finish()])
        np.testing.assert_allclose(flushed, whole[len(out) - len(flushed) :], atol=2e-5)
    assert len(np.concatenate([out, resampler.finish()])) == len(expected)


def test_flush_keeps_little() -> None:
    resampler = Resampler(16_000, 24_000, 1)
    for _ in range(1000):
        resampler.push(np.zeros((320, 1), np.float32))
    assert sum(map(len, resampler._recent)) < 2 * 1600

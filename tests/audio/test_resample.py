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
def test_pieces_equal_the_whole_exactly(rate: int, channels: int, length: int, places: list[int]) -> None:
    signal = np.random.default_rng(length).standard_normal((length, channels)).astype(np.float32)
    whole, pieces = Resampler(rate, 24_000, channels), Resampler(rate, 24_000, channels)
    expected = [whole.push(signal), whole.finish()]
    edges = [0, *sorted(min(place, length) for place in places), length]
    actual = [pieces.push(signal[a:b]) for a, b in pairwise(edges)]
    actual.append(pieces.finish())
    np.testing.assert_array_equal(np.concatenate(actual), np.concatenate(expected))


@pytest.mark.parametrize("rate", _RATES)
def test_a_tone_keeps_its_pitch_level_and_length(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)[:, np.newaxis]
    resampler = Resampler(rate, 24_000, 1)
    out = np.concatenate([resampler.push(tone), resampler.finish()])[:, 0]
    expected = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    assert abs(len(out) - 24_000) <= 1
    middle = slice(2_000, 22_000)
    np.testing.assert_allclose(out[middle], expected[middle], atol=1e-3)


def test_equal_rates_pass_samples_through() -> None:
    signal = np.ones((5, 2), np.float32)
    resampler = Resampler(24_000, 24_000, 2)
    assert resampler.push(signal) is signal
    assert resampler.finish().shape == (0, 2)

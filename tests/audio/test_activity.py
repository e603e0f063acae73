"""Silence by energy."""

from __future__ import annotations

import numpy as np
import pytest
from support.speech import clip

from tympan.audio.activity import SilenceMeter, pauses_from_silence
from tympan.messages import Samples

RATE, FRAME = 24_000, 1_920


def measure(samples: Samples) -> list[float]:
    """Seconds of silence after each frame."""
    meter = SilenceMeter(FRAME / RATE)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return [FRAME / RATE * meter.push(float(level)) for level in np.sqrt(np.square(frames).mean(axis=1))]


def noise(seconds: float, level: float) -> Samples:
    return (level * np.random.default_rng(0).standard_normal(int(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("level", [0.0, 1e-4, 3e-3])
def test_speech_in_silence_and_noise(level: float) -> None:
    speech = clip("counting").at(RATE)
    around = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([around, speech, around])
    silence = measure((samples + noise(len(samples) / RATE, level)[: len(samples)]).astype(np.float32))
    first, last = 25, 25 + len(speech) // FRAME
    assert silence[first - 2] > 1.5
    assert max(silence[first + 4 : last - 4]) < 0.5
    assert silence[-1] > 1.5


def test_steady_noise_becomes_floor() -> None:
    samples = np.concatenate([noise(1, 1e-4), noise(60, 0.05)])
    silence = measure(samples)
    assert silence[15] == 0.0
    # The floor rises by 1 dB per second: from -80 dB to 10 dB below the noise at -26 dB.
    assert FRAME / RATE * next(i for i in range(15, len(silence)) if silence[i]) == pytest.approx(1 + 44, abs=1.5)


def test_pauses_from_silence() -> None:
    assert pauses_from_silence(0.0, (0.5, 2.0)) == (0.0, 0.0)
    assert pauses_from_silence(1.0, (0.5, 2.0)) == (1.0, 0.5)

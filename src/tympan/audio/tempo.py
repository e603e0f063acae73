"""How high and how fast speech sounds: the two marks of a wrong sample rate.

Both scale with the speed at which a recording is played: the pitch of the voice, and the rate of the syllables, which
stands in the modulation spectrum of the loudness, around 4 Hz in every language (Houtgast and Steeneken 1985).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tympan.messages import Samples

_Floats = npt.NDArray[np.floating]

_FRAME_SECONDS = 0.128  # five periods of the lowest pitch
_LOWEST_HZ, _HIGHEST_HZ = 40.0, 800.0
_VOICED = 0.75  # normalized autocorrelation above which a frame has a pitch
_NEARLY_THE_PEAK = 0.93  # the shortest lag that is nearly as good as the best: avoids sub-octaves
_LOUD = 0.3  # of the level of the loud frames: others are pauses
_ENVELOPE_SECONDS = 0.01
_MODULATION_HZ = (0.8, 25.0)


@dataclass(frozen=True, slots=True)
class Tempo:
    """`pitch_hz` is the median of the voiced frames, of which there were `voiced_seconds`; `pitch_spread` is the width
    of the middle half of them, as a share of the median. `modulation_hz` is the (geometric) centre of the loudness
    modulation spectrum."""

    pitch_hz: float
    pitch_spread: float
    voiced_seconds: float
    modulation_hz: float


def measure(samples: Samples, sample_rate: int) -> Tempo:
    """Mono `[n]` of some seconds of speech at 8 kHz or so. About a millisecond of work."""
    pitches = _pitches(samples, sample_rate)
    low, median, high = np.percentile(pitches, [25, 50, 75]) if len(pitches) else (0.0, 0.0, 0.0)
    return Tempo(
        pitch_hz=float(median),
        pitch_spread=float((high - low) / median) if median else 0.0,
        voiced_seconds=len(pitches) * 2 * _FRAME_SECONDS,
        modulation_hz=_modulation_hz(samples.astype(np.float64), sample_rate),
    )


def _pitches(samples: Samples, sample_rate: int) -> _Floats:
    """The pitch in Hz of each loud, voiced frame, by autocorrelation corrected for its window (Boersma 1993)."""
    size = int(_FRAME_SECONDS * sample_rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: 2 * size]
    level = frames.std(axis=1)
    frames = frames[level > _LOUD * np.percentile(level, 95)]
    window = np.hanning(size).astype(np.float32)
    shape = _autocorrelation(window[np.newaxis])
    sound = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    shortest, longest = int(sample_rate / _HIGHEST_HZ), int(sample_rate / _LOWEST_HZ)
    lags = (sound / shape)[:, shortest - 1 : longest + 2]
    inner = lags[:, 1:-1]
    best = inner.max(axis=1, keepdims=True, initial=0.0)
    peaks = (inner >= lags[:, :-2]) & (inner > lags[:, 2:]) & (inner >= _NEARLY_THE_PEAK * best)
    voiced = peaks.any(axis=1) & (best[:, 0] > _VOICED)
    pitches: _Floats = sample_rate / (peaks[voiced].argmax(axis=1) + shortest)
    return pitches


def _autocorrelation(frames: _Floats) -> _Floats:
    """`[frames, n]` to `[frames, n/2]`, 1 at lag 0."""
    size = frames.shape[1]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * size)) ** 2)[:, : size // 2]
    normal: _Floats = correlation / np.maximum(correlation[:, :1], 1e-12)
    return normal


def _modulation_hz(samples: _Floats, sample_rate: int) -> float:
    size = int(_ENVELOPE_SECONDS * sample_rate)
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    loudness = np.sqrt((blocks**2).mean(axis=1))
    # 2 % of the peak: pauses all sound the same, whatever noise is in them.
    loudness = np.log(loudness + 0.02 * loudness.max() + 1e-9)
    spectrum = np.abs(np.fft.rfft((loudness - loudness.mean()) * np.hanning(len(loudness)))) ** 2
    frequency = np.fft.rfftfreq(len(loudness), size / sample_rate)
    band = (frequency > _MODULATION_HZ[0]) & (frequency < _MODULATION_HZ[1])
    total = spectrum[band].sum()
    if total <= 0:
        return 0.0
    return float(np.exp((spectrum[band] * np.log(frequency[band])).sum() / total))

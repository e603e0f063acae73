"""Samples of any rate and layout to the rate and the number of channels that were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tympan.audio.resample import Resampler
from tympan.errors import AudioError
from tympan.messages import Samples

_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_MOST_CHANNELS = 16
# After ITU-R BS.775: the sides at -3 dB beside the centre, the rest at -6 dB, no low-frequency channel.
_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_OTHER_WEIGHT = 0.5


class Mixer:
    """Mixes down and resamples. Rate and layout may change from one push to the next, as in chained Ogg.

    or_fewer: where the first push has one channel, that is what comes out of all.
    Raises `AudioError` for impossible rates and layouts, and where two channels are wanted but not there.
    """

    def __init__(self, sample_rate: int, channels: int, *, or_fewer: bool = False) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._or_fewer = or_fewer
        self._source_rate = sample_rate
        self._resampler = Resampler(sample_rate, sample_rate, channels)

    def push(self, samples: Samples, rate: int, layout: Sequence[str]) -> Iterator[Samples]:
        """`[n, source channels]` in, `[m, channels]` out in blocks of at most about a second.

        `layout` names the source's channels in libav's words: FL, FR, FC, LFE, …
        """
        if self._or_fewer:
            self._take(len(layout))
        self._check(rate, layout)
        if rate != self._source_rate:
            yield from self.finish()
            self._source_rate = rate
            self._resampler = Resampler(rate, self._sample_rate, self._channels)
        # A second at a time: at a low rate, one frame of a codec may hold many.
        for start in range(0, len(samples), rate):
            block = self._mix(samples[start : start + rate], layout)
            resampled = self._resampler.push(block)
            if len(resampled):
                yield resampled

    def finish(self) -> Iterator[Samples]:
        """The resampler's remainder."""
        rest = self._resampler.finish()
        if len(rest):
            yield rest

    def _take(self, channels: int) -> None:
        self._or_fewer = False
        if channels < self._channels:
            self._channels = channels
            self._resampler = Resampler(self._source_rate, self._sample_rate, channels)

    def _check(self, rate: int, layout: Sequence[str]) -> None:
        if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            raise AudioError(f"the audio claims {rate} samples per second, which cannot be")
        if not 1 <= len(layout) <= _MOST_CHANNELS:
            raise AudioError(f"audio of {len(layout)} channels is not supported")
        if self._channels == 2 and len(layout) != 2:
            has = "one channel" if len(layout) == 1 else f"{len(layout)} channels"
            raise AudioError(f"channels=2 was asked for, but the audio has {has}; use channels=1")

    def _mix(self, samples: Samples, layout: Sequence[str]) -> Samples:
        if samples.shape[1] == self._channels:
            return samples
        # Not a matrix product: its sums may round differently with the number of rows.
        mono = np.zeros(len(samples), np.float32)
        for channel, weight in enumerate(_mono_weights(layout)):
            mono += samples[:, channel] * weight
        return mono[:, np.newaxis]


def _mono_weights(layout: Sequence[str]) -> Samples:
    """One weight per channel, float32 `[source channels]`, adding up to 1 so that nothing clips."""
    weights = np.array([_WEIGHTS.get(name, _OTHER_WEIGHT) for name in layout], np.float32)
    if not weights.any():
        weights += 1.0
    normal: Samples = weights / weights.sum()
    return normal

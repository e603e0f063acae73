"""Converts samples of any rate and channel layout to the requested rate and channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tympan.audio.resample import Resampler
from tympan.audio.source import Details
from tympan.errors import AudioError
from tympan.messages import Samples

_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_MOST_CHANNELS = 16
# After ITU-R BS.775: the sides at -3 dB beside the centre, the rest at -6 dB, no low-frequency channel.
_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_OTHER_WEIGHT = 0.5
_STEREO = ("FL", "FR")
_QUIET = 1e-3  # -60 dB: below it a mixture says nothing about the phase
_PHASE_SECONDS = 0.2
_CANCELLED_SHARE = 0.01  # of the energy that remains in the mixture


class PhaseCheck:
    """Holds the first loud samples of a stereo signal back until it is clear whether its channels cancel each other.

    The decision depends on the samples alone, not on how they are split.

    Args:
        sample_rate: In Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._needed = round(_PHASE_SECONDS * sample_rate)
        self._held: list[Samples] = []
        self._loud = 0
        self._sides = self._mixture = 0.0

    def push(self, samples: Samples) -> tuple[list[Samples], bool | None]:
        """Add samples `[n, 2]`; return those that are released, and whether the channels cancel, None if undecided."""
        loud = np.flatnonzero(np.abs(samples).max(axis=1) > _QUIET)
        if not self._held and not len(loud):
            return [samples], None
        self._held.append(samples)
        examined = samples[loud[: self._needed - self._loud]].astype(np.float64)
        self._loud += len(examined)
        self._sides += float(np.square(examined).sum()) / 2
        self._mixture += float(np.square(examined.mean(axis=1)).sum())
        return self.finish() if self._loud >= self._needed else ([], None)

    def finish(self) -> tuple[list[Samples], bool]:
        """Return the samples that are still held, and whether the channels cancel each other."""
        held, self._held = self._held, []
        return held, self._loud > 0 and self._mixture < _CANCELLED_SHARE * self._sides


class Mixer:
    """Mixes down and resamples. Rate and layout may change between pushes, as in chained Ogg.

    Args:
        sample_rate: The target rate in Hz.
        channels: The target number of channels, 1 or 2.
        or_fewer: Whether to produce one channel if the first push has only one.
        details: Receives a warning about stereo whose channels cancel each other; then the first one is used.

    Raises:
        AudioError: On `push`: the rate or layout is invalid, or the audio has not two channels.
    """

    def __init__(
        self, sample_rate: int, channels: int, *, or_fewer: bool = False, details: Details | None = None
    ) -> None:
        self._details = details or Details()
        self._phase: PhaseCheck | None = None
        self._phase_checked = self._cancels = False
        self._sample_rate = sample_rate
        self._channels = channels
        self._or_fewer = or_fewer
        self._source_rate = sample_rate
        self._resampler = Resampler(sample_rate, sample_rate, channels)

    def push(self, samples: Samples, rate: int, layout: Sequence[str]) -> Iterator[Samples]:
        """Convert `[n, source channels]` and yield `[m, channels]` in blocks of at most about a second.

        Args:
            samples: Samples of the source.
            rate: Their rate in Hz.
            layout: The source's channels by libav's names: FL, FR, FC, LFE, …
        """
        if self._or_fewer:
            self._take(len(layout))
        self._check(rate, layout)
        if rate != self._source_rate:
            yield from self.finish()
            self._source_rate = rate
            self._resampler = Resampler(rate, self._sample_rate, self._channels)
        if self._channels == 1 and not self._phase_checked:
            if tuple(layout) == _STEREO:
                yield from self._check_phase(samples, rate)
                return
            yield from self._end_phase_check()
        yield from self._convert(samples, rate, layout)

    def _check_phase(self, samples: Samples, rate: int) -> Iterator[Samples]:
        self._phase = self._phase or PhaseCheck(rate)
        released, cancels = self._phase.push(samples)
        if cancels is not None:
            self._decide(cancels)
        for each in released:
            yield from self._convert(each, rate, _STEREO)

    def _end_phase_check(self) -> Iterator[Samples]:
        if self._phase is None or self._phase_checked:
            return
        held, cancels = self._phase.finish()
        if held:
            self._decide(cancels)
        for each in held:
            yield from self._convert(each, self._source_rate, _STEREO)

    def _decide(self, cancels: bool) -> None:
        self._phase_checked, self._cancels = True, cancels
        if cancels:
            self._details.warn(
                "antiphase", "the two channels cancel each other when mixed; only the first one is transcribed"
            )

    def _convert(self, samples: Samples, rate: int, layout: Sequence[str]) -> Iterator[Samples]:
        # A second at a time: one frame of a codec with a low rate may contain many.
        for start in range(0, len(samples), rate):
            block = self._mix(samples[start : start + rate], layout)
            resampled = self._resampler.push(block)
            if len(resampled):
                yield resampled

    def finish(self) -> Iterator[Samples]:
        """Yield the samples that the mixer and the resampler hold back."""
        yield from self._end_phase_check()
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
            raise AudioError(f"invalid sample rate of the audio: {rate} Hz")
        if not 1 <= len(layout) <= _MOST_CHANNELS:
            raise AudioError(f"audio of {len(layout)} channels is not supported")
        if self._channels == 2 and len(layout) != 2:
            has = "one channel" if len(layout) == 1 else f"{len(layout)} channels"
            raise AudioError(f"channels=2 was requested, but the audio has {has}; use channels=1")

    def _mix(self, samples: Samples, layout: Sequence[str]) -> Samples:
        if samples.shape[1] == self._channels:
            return samples
        if self._cancels and tuple(layout) == _STEREO:
            return np.ascontiguousarray(samples[:, :1])
        # Not a matrix product, whose rounding may depend on the number of rows.
        mono = np.zeros(len(samples), np.float32)
        for channel, weight in enumerate(_mono_weights(layout)):
            mono += samples[:, channel] * weight
        return mono[:, np.newaxis]


def _mono_weights(layout: Sequence[str]) -> Samples:
    """Return a weight per channel, float32 `[source channels]`, with the sum 1 so that nothing clips."""
    weights = np.array([_WEIGHTS.get(name, _OTHER_WEIGHT) for name in layout], np.float32)
    if not weights.any():
        weights += 1.0
    normal: Samples = weights / weights.sum()
    return normal

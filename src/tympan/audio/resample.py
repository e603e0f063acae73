"""Sample-rate conversion with state, one per stream."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import soxr

from tympan.messages import Samples

_REACH_SECONDS = 0.1  # no sample hears of what is further away; the filters are shorter than that


class Resampler:
    """Converts float32 `[n, channels]` from one rate to another (soxr's high quality; no clipping).

    Pushing a signal in pieces gives exactly the samples of pushing it at once. Equal rates pass samples through.
    Output lags input by the filter's length, 37 to 73 ms at the usual rates, until `flush` or `finish`.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._rates = from_rate, to_rate
        self._channels = channels
        self._stream = None if from_rate == to_rate else self._open()
        # The latest samples pushed, so that a flush can hear the end of them once more.
        self._recent: deque[Samples] = deque()
        self._recent_start = 0
        self._grid = from_rate // math.gcd(from_rate, to_rate)  # every so many of them, one falls on one of the output
        self._reach = round(_REACH_SECONDS * from_rate) + self._grid
        self._pushed = 0
        self._given = 0
        self._early = 0  # of those given, what the stream has yet to bring: a flush was faster

    def push(self, samples: Samples) -> Samples:
        """Float32 `[n, channels]` in, `[m, channels]` out, where m may be 0."""
        if self._stream is None or not len(samples):
            return samples
        recent = self._recent
        recent.append(samples)
        self._pushed += len(samples)
        while self._pushed - self._recent_start - len(recent[0]) >= self._reach:
            self._recent_start += len(recent.popleft())
        return self._new(self._stream.resample_chunk(samples))

    def flush(self) -> Samples:
        """The samples still in the filter, `[m, channels]`, as if silence followed; they do not come again.

        What follows is as exact as without it: the stream that brings it is not asked.
        """
        due = int(self._pushed * self._rates[1] / self._rates[0] + 0.5) - self._given
        if self._stream is None or due <= 0:
            return self._nothing()
        recent = np.concatenate(self._recent)
        start = -(-self._recent_start // self._grid) * self._grid
        tail: Samples = self._open().resample_chunk(recent[start - self._pushed :], last=True)[-due:]
        self._given += len(tail)
        self._early += len(tail)
        return tail

    def finish(self) -> Samples:
        """The samples still in the filter, `[m, channels]`. Call once, last."""
        if self._stream is None:
            return self._nothing()
        return self._new(self._stream.resample_chunk(self._nothing(), last=True))

    def _open(self) -> soxr.ResampleStream:
        return soxr.ResampleStream(*self._rates, self._channels, dtype="float32", quality="HQ")

    def _nothing(self) -> Samples:
        return np.zeros((0, self._channels), np.float32)

    def _new(self, samples: Samples) -> Samples:
        """Without those that a flush has given before."""
        if self._early:
            early = min(self._early, len(samples))
            self._early -= early
            samples = samples[early:]
        self._given += len(samples)
        return samples

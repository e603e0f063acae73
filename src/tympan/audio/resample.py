"""Sample-rate conversion with state, one per stream."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import soxr

from tympan.messages import Samples

_REACH_SECONDS = 0.1  # longer than the filters, so no sample depends on anything further away


class Resampler:
    """Converts float32 `[n, channels]` from one rate to another (soxr's high quality; no clipping).

    Pushing a signal in pieces gives exactly the samples of pushing it at once. Equal rates pass samples through.
    Output lags input by the filter's length, 37 to 73 ms at the usual rates, until `flush` or `finish`.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._rates = from_rate, to_rate
        self._channels = channels
        self._stream = None if from_rate == to_rate else self._open()
        # The latest samples, which a flush resamples again.
        self._recent: deque[Samples] = deque()
        self._recent_start = 0
        self._grid = from_rate // math.gcd(from_rate, to_rate)  # input samples per output sample that coincides
        self._reach = round(_REACH_SECONDS * from_rate) + self._grid
        self._pushed = 0
        self._returned = 0
        self._early = 0  # samples that a flush has returned before the stream

    def push(self, samples: Samples) -> Samples:
        """Resample float32 `[n, channels]` to `[m, channels]`, where m may be 0."""
        if self._stream is None or not len(samples):
            return samples
        recent = self._recent
        recent.append(samples)
        self._pushed += len(samples)
        while self._pushed - self._recent_start - len(recent[0]) >= self._reach:
            self._recent_start += len(recent.popleft())
        return self._new(self._stream.resample_chunk(samples))

    def flush(self) -> Samples:
        """Return the samples still in the filter, `[m, channels]`, as if silence followed.

        They are not returned again, and the following samples are as exact as without the flush.
        """
        due = int(self._pushed * self._rates[1] / self._rates[0] + 0.5) - self._returned
        if self._stream is None or due <= 0:
            return self._empty()
        recent = np.concatenate(self._recent)
        start = -(-self._recent_start // self._grid) * self._grid
        tail: Samples = self._open().resample_chunk(recent[start - self._pushed :], last=True)[-due:]
        self._returned += len(tail)
        self._early += len(tail)
        return tail

    def finish(self) -> Samples:
        """Return the samples still in the filter, `[m, channels]`; call this once at the end."""
        if self._stream is None:
            return self._empty()
        return self._new(self._stream.resample_chunk(self._empty(), last=True))

    def _open(self) -> soxr.ResampleStream:
        return soxr.ResampleStream(*self._rates, self._channels, dtype="float32", quality="HQ")

    def _empty(self) -> Samples:
        return np.zeros((0, self._channels), np.float32)

    def _new(self, samples: Samples) -> Samples:
        """Return the samples without those that a flush has returned."""
        if self._early:
            early = min(self._early, len(samples))
            self._early -= early
            samples = samples[early:]
        self._returned += len(samples)
        return samples

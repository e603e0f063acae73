"""Sample-rate conversion with state, one per stream."""

from __future__ import annotations

import numpy as np
import soxr

from tympan.messages import Samples


class Resampler:
    """Converts float32 `[n, channels]` from one rate to another (soxr's high quality; no clipping).

    Pushing a signal in pieces gives exactly the samples of pushing it at once. Equal rates pass samples through.
    Output lags input by the filter's length, about 10 to 40 ms, until `finish`.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._channels = channels
        self._stream = (
            soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")
            if from_rate != to_rate
            else None
        )

    def push(self, samples: Samples) -> Samples:
        """Float32 `[n, channels]` in, `[m, channels]` out, where m may be 0."""
        if self._stream is None or not len(samples):
            return samples
        return self._resample(samples, last=False)

    def finish(self) -> Samples:
        """The samples still in the filter, `[m, channels]`. Call once, last."""
        nothing = np.zeros((0, self._channels), np.float32)
        if self._stream is None:
            return nothing
        return self._resample(nothing, last=True)

    def _resample(self, samples: Samples, *, last: bool) -> Samples:
        assert self._stream is not None
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled

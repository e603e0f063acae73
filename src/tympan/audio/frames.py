"""Divides a stream of samples into the engine's frames."""

from __future__ import annotations

import numpy as np

from tympan.audio.samples import as_float
from tympan.messages import Pcm


class Framer:
    """Collects mono samples into frames of `frame_samples`, however the samples are split.

    Frames are contiguous and have the dtype of their samples; a frame with both dtypes is float32. Samples of exactly
    one frame are returned without a copy, so the caller must not change them later.
    """

    def __init__(self, frame_samples: int) -> None:
        assert frame_samples > 0
        self._frame: Pcm = np.zeros(frame_samples, np.float32)
        self._filled = 0
        self._taken = 0

    @property
    def pending(self) -> int:
        """Samples of the partial frame."""
        return self._filled

    def push(self, samples: Pcm) -> list[Pcm]:
        """Add samples `[n]` and return the completed frames, each `[frame_samples]`."""
        assert samples.ndim == 1
        if not self._filled and len(samples) == len(self._frame):  # the messages of most clients
            return [np.ascontiguousarray(samples)]
        if samples.dtype != self._frame.dtype:
            samples = self._with_one_dtype(samples)
        filled = self._filled + len(samples)
        if filled < len(self._frame):
            self._frame[self._filled : filled] = samples
            self._filled = filled
            return []
        frames: list[Pcm] = []
        start = 0
        while start < len(samples):
            taken = samples[start : start + len(self._frame) - self._filled]
            self._frame[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            start += len(taken)
            if self._filled == len(self._frame):
                frames.append(self._take())
        return frames

    def take_partial(self) -> Pcm | None:
        """Return the new samples of the partial frame, padded with zeros, or None if there are none.

        Zeros replace these samples in the frame itself, so every sample is transcribed once.
        """
        if self._taken == self._filled:
            return None
        partial = np.zeros_like(self._frame)
        partial[self._taken : self._filled] = self._frame[self._taken : self._filled]
        self._frame[: self._filled] = 0
        self._taken = self._filled
        return partial

    def pad(self) -> Pcm | None:
        """Return the partial frame, zero-padded, or None if there is none."""
        if not self._filled:
            return None
        self._frame[self._filled :] = 0
        return self._take()

    def _take(self) -> Pcm:
        """Return the buffer and begin a new one, so that every sample is copied once."""
        frame = self._frame
        self._frame = np.empty_like(frame)
        self._filled = self._taken = 0
        return frame

    def _with_one_dtype(self, samples: Pcm) -> Pcm:
        """Give the partial frame and the samples the same dtype."""
        if self._filled:
            self._frame = as_float(self._frame)
            return as_float(samples)
        self._frame = np.empty_like(self._frame, dtype=samples.dtype)
        return samples

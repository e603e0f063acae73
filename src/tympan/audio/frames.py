"""Cuts a stream of samples into the engine's frames."""

from __future__ import annotations

import numpy as np

from tympan.audio.samples import as_float
from tympan.messages import Pcm


class Framer:
    """Collects mono samples into frames of `frame_samples`; the same frames however the samples were split.

    Frames are contiguous, and of the type of their samples, float32 where that changes within one. Samples that are
    just one frame become that frame: the caller must not change them later.
    """

    def __init__(self, frame_samples: int) -> None:
        assert frame_samples > 0
        self._frame: Pcm = np.zeros(frame_samples, np.float32)
        self._filled = 0
        self._shown = 0

    @property
    def pending(self) -> int:
        """Samples that wait for their frame to fill."""
        return self._filled

    def push(self, samples: Pcm) -> list[Pcm]:
        """Mono `[n]` in, the frames `[frame_samples]` that it completed out."""
        assert samples.ndim == 1
        if not self._filled and len(samples) == len(self._frame):  # the usual client's messages
            return [np.ascontiguousarray(samples)]
        if samples.dtype != self._frame.dtype:
            samples = self._one_type(samples)
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

    def show(self) -> Pcm | None:
        """The started frame filled up with zeros, for who cannot wait for its end; None where none was started.

        Every sample is heard once: in the frame itself, zeros are in the place of what was shown.
        """
        if self._shown == self._filled:
            return None
        shown = np.zeros_like(self._frame)
        shown[self._shown : self._filled] = self._frame[self._shown : self._filled]
        self._frame[: self._filled] = 0
        self._shown = self._filled
        return shown

    def pad(self) -> Pcm | None:
        """The started frame filled up with zeros, or None where none was started."""
        if not self._filled:
            return None
        self._frame[self._filled :] = 0
        return self._take()

    def _take(self) -> Pcm:
        """Hands the buffer itself out and starts a new one, so that every sample is copied once."""
        frame = self._frame
        self._frame = np.empty_like(frame)
        self._filled = self._shown = 0
        return frame

    def _one_type(self, samples: Pcm) -> Pcm:
        """Make the started frame, if there is one, and the samples after it the same."""
        if self._filled:
            self._frame = as_float(self._frame)
            return as_float(samples)
        self._frame = np.empty_like(self._frame, dtype=samples.dtype)
        return samples

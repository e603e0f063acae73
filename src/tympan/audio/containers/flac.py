"""Samples to a FLAC file, written as they come.

By libsndfile, whose encoder takes a fifth of a MiB for each open file; libav's takes 7.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from soundfile import LibsndfileError, SoundFile

from tympan.audio.samples import as_integers
from tympan.messages import Pcm


class FlacWriter:
    """16-bit FLAC of one or two channels into an open file, which stays open. Keeps up to a second back.

    Methods raise `OSError` when the file cannot be written; what was written so far can still be played.
    """

    def __init__(self, descriptor: int, sample_rate: int, channels: int) -> None:
        """`descriptor` is of a file open for reading and writing."""
        self._file = SoundFile(descriptor, "w", sample_rate, channels, subtype="PCM_16", format="FLAC", closefd=False)
        self._block_samples = sample_rate
        self._waiting: list[npt.NDArray[np.int16]] = []
        self._waiting_samples = 0

    def write(self, samples: Pcm) -> None:
        """`[n, channels]`; what is outside [-1, 1] is clipped."""
        self._waiting.append(as_integers(samples))
        self._waiting_samples += len(samples)
        if self._waiting_samples >= self._block_samples:
            self._encode()

    def _encode(self) -> None:
        samples = np.concatenate(self._waiting)
        self._waiting.clear()
        self._waiting_samples = 0
        try:
            self._file.write(samples)
        except LibsndfileError as error:  # it has no number that says why
            raise OSError(f"a FLAC file cannot be written: {error}") from None

    def close(self) -> None:
        """Writes the last samples, and the length into the file's head."""
        if self._waiting:
            self._encode()
        self._file.close()

    def abandon(self) -> None:
        """Close it without what waits, after something has failed. Raises nothing."""
        self._file.close()

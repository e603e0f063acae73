"""Writes FLAC files incrementally, with libsndfile, whose encoder needs 0.2 MiB per open file; libav's needs 7 MiB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from soundfile import LibsndfileError, SoundFile

from tympan.audio.samples import as_integers
from tympan.messages import Pcm


class FlacWriter:
    """Writes 16-bit FLAC of one or two channels to an open file, buffering up to a second.

    Methods raise `OSError` if the file cannot be written; the part written before can still be played.

    Args:
        descriptor: A file open for reading and writing; it is not closed.
        sample_rate: In Hz.
        channels: 1 or 2.
    """

    def __init__(self, descriptor: int, sample_rate: int, channels: int) -> None:
        self._file = SoundFile(descriptor, "w", sample_rate, channels, subtype="PCM_16", format="FLAC", closefd=False)
        self._block_samples = sample_rate
        self._waiting: list[npt.NDArray[np.int16]] = []
        self._waiting_samples = 0

    def write(self, samples: Pcm) -> None:
        """Write samples `[n, channels]`; values outside [-1, 1] are clipped."""
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
        except LibsndfileError as error:  # it has no error number
            raise OSError(f"a FLAC file cannot be written: {error}") from None

    def close(self) -> None:
        """Write the last samples, and the length into the header."""
        if self._waiting:
            self._encode()
        self._file.close()

    def abandon(self) -> None:
        """Close the file without the buffered samples, after an error; raises nothing."""
        self._file.close()

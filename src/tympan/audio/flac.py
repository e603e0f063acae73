"""Samples to a FLAC file, written as they come."""

from __future__ import annotations

from contextlib import suppress
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError

from tympan.messages import Samples

_BLOCK_SAMPLES = 8192  # encoded at once: a call costs as much as a few thousand samples
_FULL_SCALE = 32768  # as the decoder of 16-bit audio has it: what came as such is written bit for bit


class FlacWriter:
    """16-bit FLAC of one or two channels into `file`, which must be open for writing, can seek, and stays open.

    `write` and `close` raise the `OSError` of the file; then what was written so far can still be played.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int) -> None:
        self._sample_rate = sample_rate
        self._layout = "stereo" if channels == 2 else "mono"
        self._container = av.open(file, "w", format="flac")
        self._stream = self._container.add_stream("flac", rate=sample_rate, layout=self._layout)
        self._stream.codec_context.thread_count = 1
        self._waiting: list[Samples] = []

    def write(self, samples: Samples) -> None:
        """Float32 `[n, channels]`; what is outside [-1, 1] is clipped. Keeps a third of a second back."""
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) >= _BLOCK_SAMPLES:
            self._encode()

    def _encode(self) -> None:
        samples = np.concatenate(self._waiting)
        self._waiting.clear()
        values = np.clip(np.rint(samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(values.reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self._sample_rate
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes the last samples, and the length into the file's head."""
        try:
            if self._waiting:
                self._encode()
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except FFmpegError as error:  # libav's word for what the file has raised before
            raise OSError(f"the end of a FLAC file cannot be written: {error}") from None

    def abandon(self) -> None:
        """Close it as it is, after `write` or `close` has failed."""
        with suppress(OSError, FFmpegError):
            self._container.close()

"""The audio of a load, cut into chunks once; every stream sends it from the beginning, repeatedly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tympan.audio.files import decode_file
from tympan.errors import AudioError

NOISE_SECONDS = 6


@dataclass(frozen=True)
class Speech:
    """16-bit little-endian mono audio in chunks of equal length.

    Attributes:
        chunks: The samples of each chunk.
        chunk_seconds: Duration of a chunk.
        sample_rate: In Hz.
        text: Transcript of the audio, if there is one.
        is_noise: Whether the audio contains no speech.
    """

    chunks: tuple[bytes, ...]
    chunk_seconds: float
    sample_rate: int
    text: str | None = None
    is_noise: bool = False

    @property
    def seconds(self) -> float:
        return len(self.chunks) * self.chunk_seconds

    def flush_points(self, every: float, chunks: int) -> frozenset[int]:
        """Return the numbers of chunks after which a session sends a flush, at quiet moments of the audio.

        A flush inside a word would split it. The last second has no flush, which would coincide with the end.

        Args:
            every: Seconds between flushes, about; 0 for none.
            chunks: Chunks of the session.
        """
        if not every:
            return frozenset()
        loudness = [float(np.square(np.frombuffer(chunk, "<i2").astype(np.float32)).mean()) for chunk in self.chunks]
        stride = max(1, round(every / self.chunk_seconds))
        end = chunks - math.ceil(1 / self.chunk_seconds)
        points = []
        for start in range(stride // 2, end, stride):
            candidates = range(start, min(start + max(1, stride // 2), end))
            points.append(1 + min(candidates, key=lambda chunk: loudness[chunk % len(loudness)]))
        return frozenset(points)


def read_speech(file: Path, sample_rate: int, chunk_seconds: float) -> Speech:
    """Read an audio file and the transcript beside it (`talk.txt` for `talk.wav`).

    Raises:
        AudioError: The file is not audio, or is empty.
    """
    blocks = list(decode_file(file, sample_rate))
    if not blocks:
        raise AudioError(f"{file} contains no audio")
    transcript = file.with_suffix(".txt")
    text = transcript.read_text(encoding="utf-8") if transcript.is_file() else None
    return Speech(_cut(np.concatenate(blocks), sample_rate, chunk_seconds), chunk_seconds, sample_rate, text)


def noise(sample_rate: int, chunk_seconds: float) -> Speech:
    """Return noise whose loudness varies like syllables, for a model that ignores the audio."""
    count = NOISE_SECONDS * sample_rate
    loudness = 0.5 - 0.5 * np.cos(np.arange(count) * (2 * np.pi * 4 / sample_rate))
    samples = 0.1 * loudness * np.random.default_rng(0).standard_normal(count)
    return Speech(_cut(samples, sample_rate, chunk_seconds), chunk_seconds, sample_rate, is_noise=True)


def _cut(samples: np.ndarray[tuple[int, ...], np.dtype[np.floating]], rate: int, seconds: float) -> tuple[bytes, ...]:
    length = round(seconds * rate)
    padded = np.pad(samples, (0, -len(samples) % length))
    pcm = np.round(np.clip(padded, -1.0, 1.0) * 32767.0).astype("<i2")
    return tuple(chunk.tobytes() for chunk in pcm.reshape(-1, length))

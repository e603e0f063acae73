"""The audio of a load: read once, cut once, sent by all streams from its beginning and over and over."""

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
    """16-bit little-endian mono in chunks of one length.

    `text` is what is said in it, if somebody wrote that down; `is_noise` where nobody says anything.
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
        """After how many chunks of a session of `chunks` a flush is sent: once in `every` seconds, where it is quiet.

        A flush within a word cuts it in two. None in the last second, where it would meet the end.
        """
        if not every:
            return frozenset()
        loudness = [float(np.square(np.frombuffer(chunk, "<i2").astype(np.float32)).mean()) for chunk in self.chunks]
        stride = max(1, round(every / self.chunk_seconds))
        end = chunks - math.ceil(1 / self.chunk_seconds)
        points = []
        for start in range(stride // 2, end, stride):
            places = range(start, min(start + max(1, stride // 2), end))
            points.append(1 + min(places, key=lambda place: loudness[place % len(loudness)]))
        return frozenset(points)


def read_speech(file: Path, sample_rate: int, chunk_seconds: float) -> Speech:
    """An audio file, and the text beside it (`talk.txt` for `talk.wav`). Raises `AudioError`."""
    blocks = list(decode_file(file, sample_rate))
    if not blocks:
        raise AudioError(f"{file}: has no audio in it")
    text = file.with_suffix(".txt")
    said = text.read_text(encoding="utf-8") if text.is_file() else None
    return Speech(_cut(np.concatenate(blocks), sample_rate, chunk_seconds), chunk_seconds, sample_rate, said)


def noise(sample_rate: int, chunk_seconds: float) -> Speech:
    """Something that swells like syllables: for a model that does not listen."""
    count = NOISE_SECONDS * sample_rate
    swell = 0.5 - 0.5 * np.cos(np.arange(count) * (2 * np.pi * 4 / sample_rate))
    samples = 0.1 * swell * np.random.default_rng(0).standard_normal(count)
    return Speech(_cut(samples, sample_rate, chunk_seconds), chunk_seconds, sample_rate, is_noise=True)


def _cut(samples: np.ndarray[tuple[int, ...], np.dtype[np.floating]], rate: int, seconds: float) -> tuple[bytes, ...]:
    length = round(seconds * rate)
    padded = np.pad(samples, (0, -len(samples) % length))
    pcm = np.round(np.clip(padded, -1.0, 1.0) * 32767.0).astype("<i2")
    return tuple(chunk.tobytes() for chunk in pcm.reshape(-1, length))

"""Audio whose words are a function of the audio alone, so that lost and repeated words are recognized.

A mark is 80 ms of one constant 16-bit level that encodes the stream and the word. One mark comes every 0.4 s, with
silence between. Half of a mark is in one message and half in the next, so that a stream that ends between two messages
cuts a word in two. A quarter of a mark suffices to detect it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

CHUNK_SECONDS = 0.08
STRIDE_CHUNKS = 5
FIRST_CHUNK = 2
LEVEL_STEP = 4  # so that rounding in a conversion changes no word
WORDS_PER_STREAM = 64  # 16 bits suffice for 127 streams

Levels = npt.NDArray[np.int_]


def text_of(number: int) -> str:
    """Return the text of word `number`, counted from 0 over all streams."""
    stream, word = divmod(number, WORDS_PER_STREAM)
    return f"s{stream}w{word}"


def texts(stream: int, count: int) -> list[str]:
    return [text_of(stream * WORDS_PER_STREAM + word) for word in range(count)]


def starts(count: int) -> list[float]:
    """Return the start of the frame in which each word begins, in seconds."""
    return [(FIRST_CHUNK + word * STRIDE_CHUNKS) * CHUNK_SECONDS for word in range(count)]


def chunks(stream: int, count: int, sample_rate: int) -> list[bytes]:
    """Return 16-bit audio with `count` words, in messages of 80 ms."""
    assert count <= WORDS_PER_STREAM
    size = round(CHUNK_SECONDS * sample_rate)
    audio = np.zeros((FIRST_CHUNK + count * STRIDE_CHUNKS) * size, "<i2")
    for word in range(count):
        start = (FIRST_CHUNK + word * STRIDE_CHUNKS) * size + size // 2
        audio[start : start + size] = LEVEL_STEP * (1 + stream * WORDS_PER_STREAM + word)
    return [chunk.tobytes() for chunk in audio.reshape(-1, size)]


class MarkDetector:
    """Detects marks in frames of any size."""

    def __init__(self, sample_rate: int) -> None:
        self._required = round(CHUNK_SECONDS * sample_rate) // 4
        self._number = 0
        self._samples = 0

    def detect(self, levels: Levels) -> list[tuple[int, int]]:
        """Return the number of each word detected in these samples, and the index of the sample where it began."""
        detected, position = [], 0
        for number, samples in runs((levels + LEVEL_STEP // 2) // LEVEL_STEP):
            before = self._samples if number == self._number else 0
            self._number, self._samples = number, before + samples
            if number > 0 and before < self._required <= self._samples:
                detected.append((number - 1, position - before))
            position += samples
        return detected


def runs(values: Sequence[int] | Levels) -> Iterator[tuple[int, int]]:
    """Yield each run of equal values as the value and its length."""
    array = np.asarray(values)
    cuts = [0, *(np.flatnonzero(np.diff(array)) + 1).tolist(), len(array)]
    for first, last in pairwise(cuts):
        if last > first:
            yield int(array[first]), last - first

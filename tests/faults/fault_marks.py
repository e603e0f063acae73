"""Audio whose words are a function of the audio alone, so that a word that is lost or heard twice is seen as such.

A mark is 80 ms of one constant 16-bit level that says which stream and which word it is; one comes every 0.4 s, silence
lies between. Half of it is in one message and half in the next, so that whoever stops between two messages cuts words
in two. Who hears a quarter of one has heard the word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

CHUNK_SECONDS = 0.08
STRIDE_CHUNKS = 5
FIRST_CHUNK = 2
LEVEL_STEP = 4  # so that a conversion that rounds changes no word
WORDS_PER_STREAM = 64  # a level has 16 bits: 127 streams of so many

Levels = npt.NDArray[np.int_]


def text_of(number: int) -> str:
    """`number` from 0; streams do not share any."""
    stream, word = divmod(number, WORDS_PER_STREAM)
    return f"s{stream}w{word}"


def texts(stream: int, count: int) -> list[str]:
    return [text_of(stream * WORDS_PER_STREAM + word) for word in range(count)]


def starts(count: int) -> list[float]:
    """When the frame begins in which each word does, in seconds of the stream's audio."""
    return [(FIRST_CHUNK + word * STRIDE_CHUNKS) * CHUNK_SECONDS for word in range(count)]


def chunks(stream: int, count: int, sample_rate: int) -> list[bytes]:
    """16-bit audio with so many words, in messages of 80 ms."""
    assert count <= WORDS_PER_STREAM
    size = round(CHUNK_SECONDS * sample_rate)
    audio = np.zeros((FIRST_CHUNK + count * STRIDE_CHUNKS) * size, "<i2")
    for word in range(count):
        start = (FIRST_CHUNK + word * STRIDE_CHUNKS) * size + size // 2
        audio[start : start + size] = LEVEL_STEP * (1 + stream * WORDS_PER_STREAM + word)
    return [chunk.tobytes() for chunk in audio.reshape(-1, size)]


class Ear:
    """Hears marks in frames that are cut anywhere."""

    def __init__(self, sample_rate: int) -> None:
        self._enough = round(CHUNK_SECONDS * sample_rate) // 4
        self._number = 0
        self._heard = 0

    def hear(self, levels: Levels) -> list[tuple[int, int]]:
        """The numbers of the words that have been recognized with these samples, and at which of them each began."""
        recognized, place = [], 0
        for number, samples in runs((levels + LEVEL_STEP // 2) // LEVEL_STEP):
            before = self._heard if number == self._number else 0
            self._number, self._heard = number, before + samples
            if number > 0 and before < self._enough <= self._heard:
                recognized.append((number - 1, place - before))
            place += samples
        return recognized


def runs(values: Sequence[int] | Levels) -> Iterator[tuple[int, int]]:
    """Each value that stands in a row, and how often."""
    array = np.asarray(values)
    cuts = [0, *(np.flatnonzero(np.diff(array)) + 1).tolist(), len(array)]
    for first, last in pairwise(cuts):
        if last > first:
            yield int(array[first]), last - first

"""Speech for the vendors' own packages, in the forms in which they send it, and the API key of the test server."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator

import numpy as np

from support.speech import clip
from tympan.messages import Samples

KEY = "key-of-the-tests"
CLIPS = ("one_to_five", "six_to_ten")
TEXT = "One two three four five. Six seven eight nine ten."
MAX_ERROR_RATE = 0.1  # one word of ten; if one of two utterances is missing or repeated, the rate is 0.5


def speech(sample_rate: int, *, pause_seconds: float = 3.0) -> Samples:
    """Return the utterances of `CLIPS`, with a pause after each: float32 `[n]`."""
    pause = np.zeros(int(pause_seconds * sample_rate), np.float32)
    return np.concatenate([part for name in CLIPS for part in (clip(name).at(sample_rate), pause)])


def pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def wav(samples: Samples, sample_rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(pcm(samples))
    return file.getvalue()


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[start : start + size] for start in range(0, len(data), size))

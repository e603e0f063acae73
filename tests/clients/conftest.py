"""Real speech for vendors' own packages to send, and the server they send it to: only the URL is ours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.server import LiveServer
from support.speech import clip

from tympan.messages import Samples

KEY = "key-of-the-tests"
WORST = 0.2  # error rate: of ten words two; half of a test's speech not heard, or heard twice, is 0.5


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", api_keys=(KEY,), host="127.0.0.1") as server:
        yield server


def speech(sample_rate: int, *, pause_seconds: float = 3.0) -> Samples:
    """Two utterances, one to five and six to ten, each with a pause after it: float32 `[n]`."""
    pause = np.zeros(int(pause_seconds * sample_rate), np.float32)
    return np.concatenate([clip("one_to_five").at(sample_rate), pause, clip("six_to_ten").at(sample_rate), pause])


def pcm(samples: Samples) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def wav(samples: Samples, sample_rate: int) -> bytes:
    """A file as a person would have it."""
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(pcm(samples))
    return file.getvalue()


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[start : start + size] for start in range(0, len(data), size))

"""Audio files for the commands."""

from __future__ import annotations

import wave
from importlib.resources import files
from pathlib import Path

import pytest


@pytest.fixture
def silent_file(tmp_path: Path) -> Path:
    """12 s of silence: two cycles of the scripted model's words, in two segments."""
    return write_silence(tmp_path / "silence.wav", 12.0)


@pytest.fixture
def spoken_file() -> Path:
    """Somebody counts from one to ten."""
    return Path(str(files("pytest_audioeval") / "samples" / "audio" / "en" / "counting.wav"))


def write_silence(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(bytes(round(seconds * 16_000) * 2))
    return path

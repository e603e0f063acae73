"""Audio files for the commands."""

from __future__ import annotations

import wave
from importlib.resources import files
from pathlib import Path

import pytest


@pytest.fixture
def silent_file(tmp_path: Path) -> Path:
    """12 s of a hum that is too quiet to hear, but no digital silence: two cycles of the scripted model's words."""
    return write_silence(tmp_path / "silence.wav", 12.0, hum=20)


@pytest.fixture
def spoken_file() -> Path:
    """Somebody counts from one to ten."""
    return Path(str(files("pytest_audioeval") / "samples" / "audio" / "en" / "counting.wav"))


def write_silence(path: Path, seconds: float, hum: int = 0) -> Path:
    """Write silence, or a square wave of amplitude `hum` at 100 Hz."""
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        period = (hum.to_bytes(2, "little") * 80) + ((-hum).to_bytes(2, "little", signed=True) * 80)
        writer.writeframes(period * round(seconds * 100))
    return path

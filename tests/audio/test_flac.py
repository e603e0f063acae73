"""FLAC files that we write, read by another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.recordings import audio_of

from tympan.audio.containers.flac import FlacWriter


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("chunk", [1, 1920, 30_000])
def test_flac_is_lossless(tmp_path: Path, channels: int, chunk: int) -> None:
    count = 500 if chunk == 1 else 60_001
    integers = np.random.default_rng(0).integers(-32768, 32768, (count, channels)).astype(np.int16)
    samples = integers.astype(np.float32) / 32768
    with (tmp_path / "a.flac").open("w+b") as file:
        writer = FlacWriter(file.fileno(), 24_000, channels)
        for start in range(0, count, chunk):
            writer.write(samples[start : start + chunk])
        writer.close()
    assert np.array_equal(audio_of(tmp_path / "a.flac"), integers)


def test_flac_clips(tmp_path: Path) -> None:
    with (tmp_path / "a.flac").open("w+b") as file:
        writer = FlacWriter(file.fileno(), 24_000, 1)
        writer.write(np.array([[1.0], [-1.0], [7.0], [-7.0]], np.float32))
        writer.close()
    assert audio_of(tmp_path / "a.flac")[:, 0].tolist() == [32767, -32768, 32767, -32768]


def test_full_disk() -> None:
    with open("/dev/full", "r+b", buffering=0) as file, pytest.raises(OSError, match="cannot be written"):
        writer = FlacWriter(file.fileno(), 24_000, 1)
        for _ in range(20):
            writer.write(np.random.default_rng(0).uniform(-1, 1, (24_000, 1)).astype(np.float32))

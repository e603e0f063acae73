"""WAV files of silence."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def wav(seconds: float, sample_rate: int = 8_000) -> Iterator[bytes]:
    """Yield the chunks of a mu-law WAV file of silence: one byte per sample."""
    size = int(seconds * sample_rate)
    layout = struct.pack("<HHIIHH", 7, 1, sample_rate, sample_rate, 1, 8)
    yield b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<I", 16) + layout
    yield b"data" + struct.pack("<I", size)
    for start in range(0, size, 1 << 16):
        yield b"\xff" * min(1 << 16, size - start)

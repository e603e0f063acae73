"""Reads WAV files with plain samples without libav, which waits for 64 KiB: a second or two of a live stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tympan.audio.mixing import Mixer
from tympan.audio.pcm import SAMPLE_BYTES, samples_from_bytes
from tympan.audio.source import ByteSource
from tympan.errors import AudioError
from tympan.messages import Samples

_EXTENSIBLE = 0xFFFE
# (format tag of RFC 2361, bits per sample) → encoding.
_ENCODINGS = {
    (1, 8): "u8",
    (1, 16): "s16le",
    (1, 24): "s24le",
    (1, 32): "s32le",
    (3, 32): "f32le",
    (3, 64): "f64le",
    (6, 8): "alaw",
    (7, 8): "mulaw",
}
_LAYOUTS = {1: ("FC",), 2: ("FL", "FR")}
_ORDER = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
_MOST_CHUNKS = 64
_LONGEST_HEADER = 4 << 20
# Written where the length is unknown.
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class WavHeader:
    """The format of the samples and where they begin; `data_bytes` is None if the length is unknown."""

    encoding: str
    sample_rate: int
    channels: int
    data_offset: int
    data_bytes: int | None


def read_header(source: ByteSource) -> WavHeader | None:
    """Return the RIFF header of `source` without consuming it, or None if only libav can read it."""
    layout, offset = b"", 12
    for _ in range(_MOST_CHUNKS):
        if source.peek(4) != b"RIFF" or offset > _LONGEST_HEADER:
            return None
        chunk = source.peek(8, offset)
        if len(chunk) < 8:
            raise AudioError("the WAV ends before its samples begin")
        kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if kind == b"data":
            return _header(layout, offset + 8, None if size in _UNKNOWN_LENGTHS else size)
        if kind == b"fmt ":
            layout = source.peek(min(size, 40), offset + 8)
        offset += 8 + size + size % 2
    return None


def wav_samples(source: ByteSource, header: WavHeader, mixer: Mixer) -> Iterator[Samples]:
    """Yield the samples `[n, channels]` of a WAV as they are received, without the mixer's remainder."""
    source.read_exactly(header.data_offset)
    frame_bytes = SAMPLE_BYTES[header.encoding] * header.channels
    layout = _LAYOUTS.get(header.channels, _ORDER[: header.channels])
    rest = b""
    for piece in _data(source, header, frame_bytes * header.sample_rate):
        data = rest + piece
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        samples = samples_from_bytes(data[:whole], header.encoding)
        yield from mixer.push(samples.reshape(-1, header.channels), header.sample_rate, layout)


def _header(layout: bytes, data_offset: int, data_bytes: int | None) -> WavHeader | None:
    """Parse the `fmt ` chunk: tag, channels, rate, bytes per second, bytes per frame, bits, extension."""
    tag, channels = int.from_bytes(layout[0:2], "little"), int.from_bytes(layout[2:4], "little")
    rate, bits = int.from_bytes(layout[4:8], "little"), int.from_bytes(layout[14:16], "little")
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(layout[24:26], "little")
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or not rate or not 1 <= channels <= len(_ORDER):
        return None
    return WavHeader(encoding, rate, channels, data_offset, data_bytes)


def _data(source: ByteSource, header: WavHeader, block_bytes: int) -> Iterator[bytes]:
    left = header.data_bytes
    while left is None or left > 0:
        data = source.read(block_bytes if left is None else min(left, block_bytes))
        if not data:
            return
        left = None if left is None else left - len(data)
        yield data

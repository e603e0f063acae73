"""Reads WAV files with plain samples, without libav.

libav waits for 64 KiB, a second or two of a live stream, and trusts declared lengths and byte orders that are wrong.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from tympan.audio.containers.wav_header import (
    MOST_CHUNKS,
    RIFF,
    TAILS,
    UNKNOWN_LENGTHS,
    WavHeader,
    byte_order,
    coded_bytes,
    is_chunk,
    read_header,
)
from tympan.audio.mixing import Mixer
from tympan.audio.pcm import SAMPLE_BYTES, samples_from_bytes
from tympan.audio.source import ByteSource, Details
from tympan.messages import Samples

_LAYOUTS: Final = {1: ("FC",), 2: ("FL", "FR")}
_ORDER: Final = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
_JUSTIFICATION_SECONDS = 5
_READ_BYTES = 1024  # filled, since the output of some demuxers depends on the size of reads
_TOO_SHORT: Final = ("wav_length", "audio follows the declared end of the WAV; it is transcribed as well")


class CodedWav:
    """A WAV of a codec as a file for libav, which must ignore the declared length.

    It ends before a chunk that follows the samples. If something else follows, the length is wrong, and all is read.
    """

    def __init__(self, source: ByteSource, details: Details) -> None:
        self._source = source
        self._details = details
        self._left = coded_bytes(source)

    def read(self, size: int) -> bytes:
        size = min(size, _READ_BYTES)
        if self._left is None:
            return self._source.read_exactly(size)
        if not self._left:
            head = self._source.peek(13)
            if len(head) < 8 or any(is_chunk(head[start : start + 12], "little") for start in (0, 1)):
                return b""
            self._details.warn(*_TOO_SHORT)
            self._left = None
            return self.read(size)
        data = self._source.read_exactly(min(size, self._left))
        self._left -= len(data)
        return data


def wav_samples(source: ByteSource, header: WavHeader, mixer: Mixer, details: Details) -> Iterator[Samples]:
    """Yield the samples `[n, channels]` of a WAV as they are received, without the mixer's remainder.

    Samples after the declared end are decoded as well: those of further `data` chunks and of WAV files that follow, and
    everything that is no chunk, since the length is then wrong.
    """
    details.duration_seconds = header.seconds
    following: WavHeader | None = header
    rest = b""
    while following is not None:
        header = _justified(source, following)
        source.skip(header.data_offset)
        rest = yield from _decode(source, header, mixer, rest)
        following = _after_data(source, header, details)
        if following is not None and following.data_offset:
            rest = b""


def _justified(source: ByteSource, header: WavHeader) -> WavHeader:
    """Find out how samples of up to 24 bits are stored in 32.

    The standard has them in the upper bytes; some programs write them into the lower ones, or as floats of their range.
    """
    if header.encoding != "s32le" or header.bits > 24:
        return header
    lower, upper = np.int64(1) << (header.bits - 1), header.frame_bytes * header.sample_rate * _JUSTIFICATION_SECONDS
    size = header.frame_bytes * 1024
    while True:
        # In steps, since most files are recognized by the first word.
        available = upper if header.data_bytes is None else min(upper, header.data_bytes)
        data = source.peek(min(size, available), header.data_offset)
        data = data[: len(data) - len(data) % 4]
        data = _swapped(data, 4) if header.big_endian else data
        values = np.frombuffer(data, "<i4").astype(np.int64)
        if _are_floats(np.frombuffer(data, "<f4"), float(lower)):
            return replace(header, encoding="f32le", gain=1 / float(lower))
        if values.size and np.abs(values).max() > lower:
            return header
        if size >= available or len(data) < size:
            break
        size *= 4
    in_lower_bytes = bool((values & 0xFF).any())
    return replace(header, gain=2.0 ** (32 - header.bits)) if in_lower_bytes else header


def _are_floats(values: Samples, most: float) -> bool:
    sound = values[np.isfinite(values) & (values != 0)]
    if len(sound) < len(values) // 2 or not len(sound):
        return False
    sizes = np.abs(sound)
    return bool(sizes.max() <= most * 1.01 and np.median(sizes) > 0.5)


def _decode(source: ByteSource, header: WavHeader, mixer: Mixer, rest: bytes) -> Generator[Samples, None, bytes]:
    """Yield the samples of one `data` chunk; return the bytes of an incomplete frame, which `rest` continues."""
    sample_bytes = SAMPLE_BYTES[header.encoding]
    layout = _LAYOUTS.get(header.channels, _ORDER[: header.channels])
    for piece in _data(source, header):
        data = rest + piece
        whole = len(data) - len(data) % header.frame_bytes
        data, rest = data[:whole], data[whole:]
        samples = samples_from_bytes(_swapped(data, sample_bytes) if header.big_endian else data, header.encoding)
        if header.gain != 1.0:
            samples = samples * np.float32(header.gain)
        yield from mixer.push(samples.reshape(-1, header.channels), header.sample_rate, layout)
    return rest


def _swapped(data: bytes, width: int) -> bytes:
    """Return samples in the other byte order."""
    return np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()


def _data(source: ByteSource, header: WavHeader) -> Iterator[bytes]:
    block_bytes = header.frame_bytes * header.sample_rate
    left = header.data_bytes
    while left is None or left > 0:
        data = source.read(block_bytes if left is None else min(left, block_bytes))
        if not data:
            return
        left = None if left is None else left - len(data)
        yield data


def _after_data(source: ByteSource, header: WavHeader, details: Details) -> WavHeader | None:
    """Return the format of the samples that follow a `data` chunk, or None at the end; skip other chunks."""
    order = byte_order(b"RIFX" if header.big_endian else b"RIFF")
    if header.data_bytes is not None and header.data_bytes % 2 and is_chunk(source.peek(12, 1), order):
        source.skip(1)
    for _ in range(MOST_CHUNKS):
        head = source.peek(12)
        kind, size = head[:4], int.from_bytes(head[4:8], order)
        if len(head) < 8 or head.startswith(TAILS):
            break
        if kind in RIFF and head[8:] == b"WAVE":
            details.warn("wav_length", "another WAV follows the first one in the file; it is transcribed as well")
            return read_header(source)
        if kind == b"data":
            return replace(header, data_offset=8, data_bytes=None if size in UNKNOWN_LENGTHS else size)
        if not is_chunk(head, order):
            details.warn(*_TOO_SHORT)
            return replace(header, data_offset=0, data_bytes=None)
        source.skip(8 + size + size % 2)
    return None

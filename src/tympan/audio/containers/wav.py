"""Reads WAV files with plain samples, without libav.

libav waits for 64 KiB, a second or two of a live stream, and trusts declared lengths and byte orders that are wrong.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import IO, Final, Literal

import numpy as np

from tympan.audio.mixing import Mixer
from tympan.audio.pcm import SAMPLE_BYTES, samples_from_bytes
from tympan.audio.source import ByteSource, Details, More
from tympan.errors import AudioError
from tympan.messages import Samples

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# (format tag of RFC 2361, bytes per sample) → encoding.
_ENCODINGS: Final = {
    (_PCM, 1): "u8",
    (_PCM, 2): "s16le",
    (_PCM, 3): "s24le",
    (_PCM, 4): "s32le",
    (_FLOAT, 4): "f32le",
    (_FLOAT, 8): "f64le",
    (_ALAW, 1): "alaw",
    (_MULAW, 1): "mulaw",
}
_LAYOUTS: Final = {1: ("FC",), 2: ("FL", "FR")}
_ORDER: Final = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR")
_RIFF: Final = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_MOST_CHUNKS = 64
_LONGEST_HEADER = 4 << 20
_LONGEST_CHUNK_AFTER_DATA = 16 << 20
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # written where the length is not known
_JUSTIFICATION_SECONDS = 5
_TAILS = (b"ID3", b"TAG", b"APET")  # tags of other formats, which some programs append


@dataclass(frozen=True, slots=True)
class WavHeader:
    """The format of the samples and where they begin; `data_bytes` is None if the length is unknown.

    Attributes:
        bits: Bits of a sample; fewer than those of its bytes where a sample is padded.
        gain: What samples are multiplied with.
    """

    encoding: str
    sample_rate: int
    channels: int
    bits: int
    big_endian: bool
    data_offset: int
    data_bytes: int | None
    gain: float = 1.0

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return SAMPLE_BYTES[self.encoding] * self.channels

    @property
    def seconds(self) -> float | None:
        """The declared duration."""
        return None if self.data_bytes is None else self.data_bytes / self.frame_bytes / self.sample_rate


def read_header(source: ByteSource) -> WavHeader | None:
    """Return the RIFF header of `source` without consuming it, or None if only libav can read it.

    Raises:
        AudioError: The file ends before its samples.
    """
    order = _order(source.peek(4))
    layout, offset, long_bytes = b"", 12, 0
    for _ in range(_MOST_CHUNKS):
        if offset > _LONGEST_HEADER:
            return None
        chunk = source.peek(8, offset)
        if len(chunk) < 8:
            raise AudioError("the WAV ends before its samples begin")
        kind, size = chunk[:4], int.from_bytes(chunk[4:], order)
        if kind == b"data":
            size = long_bytes if size == 0xFFFFFFFF else size
            return _header(layout, order == "big", offset + 8, None if size in _UNKNOWN_LENGTHS else size)
        if kind == b"fmt ":
            layout = source.peek(min(size, 40), offset + 8)
        if kind == b"ds64":  # sizes of RF64 (EBU Tech 3306): of the file, then of the samples
            long_bytes = int.from_bytes(source.peek(8, offset + 16), "little")
        offset += 8 + size + size % 2
    return None


def data_precedes_format(source: ByteSource) -> bool:
    """Return whether the samples of a RIFF file are its first chunk."""
    return source.peek(4, 12) == b"data"


def with_format_first(file: IO[bytes]) -> ByteSource:
    """Return a WAV whose samples precede its `fmt ` chunk with a copy of that chunk before them.

    Raises:
        AudioError: There is no `fmt ` chunk.
    """
    head = file.read(12)
    order = _order(head[:4])
    offset = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(offset)
        chunk = file.read(8)
        size = int.from_bytes(chunk[4:], order)
        if len(chunk) < 8:
            break
        if chunk[:4] == b"fmt ":
            layout = file.read(min(size, 40)).ljust(40, b"\0")
            start = head + b"fmt " + len(layout).to_bytes(4, order) + layout
            file.seek(12)
            return ByteSource(_followed_by(start, file))
        offset += 8 + size + size % 2
    raise AudioError("the WAV has samples but no `fmt ` chunk, which describes them")


def _followed_by(start: bytes, file: IO[bytes]) -> More:
    pieces = iter([start])
    return lambda: next(pieces, b"") or file.read(1 << 16)


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


def _order(riff: bytes) -> Literal["little", "big"]:
    return "big" if riff == b"RIFX" else "little"


def _header(layout: bytes, big_endian: bool, data_offset: int, data_bytes: int | None) -> WavHeader | None:
    """Parse the `fmt ` chunk: tag, channels, rate, bytes per second, bytes per frame, bits, extension.

    The oldest form has 14 bytes and no bits. Where bytes per frame and bits disagree, samples are padded.
    """
    order: Literal["little", "big"] = "big" if big_endian else "little"
    tag, channels, rate, frame_bytes, bits, subformat = (
        int.from_bytes(layout[start:end], order)
        for start, end in ((0, 2), (2, 4), (4, 8), (12, 14), (14, 16), (24, 26))
    )
    tag = subformat if tag == _EXTENSIBLE else tag
    if not rate or not 1 <= channels <= len(_ORDER):
        return None
    width = frame_bytes // channels if not frame_bytes % channels else 0
    if width * 8 < bits or tag != _PCM:
        width = -(-bits // 8) or width
    encoding = _ENCODINGS.get((tag, width))
    if encoding is None:
        return None
    return WavHeader(encoding, rate, channels, bits or width * 8, big_endian, data_offset, data_bytes)


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
    order = _order(b"RIFX" if header.big_endian else b"RIFF")
    if header.data_bytes is not None and header.data_bytes % 2 and _is_chunk(source.peek(12, 1), order):
        source.skip(1)
    for _ in range(_MOST_CHUNKS):
        head = source.peek(12)
        kind, size = head[:4], int.from_bytes(head[4:8], order)
        if len(head) < 8 or head.startswith(_TAILS):
            break
        if kind in _RIFF and head[8:] == b"WAVE":
            details.warn("wav_length", "another WAV follows the first one in the file; it is transcribed as well")
            return read_header(source)
        if kind == b"data":
            return replace(header, data_offset=8, data_bytes=None if size in _UNKNOWN_LENGTHS else size)
        if not _is_chunk(head, order):
            details.warn("wav_length", "audio follows the declared end of the WAV; it is transcribed as well")
            return replace(header, data_offset=0, data_bytes=None)
        source.skip(8 + size + size % 2)
    return None


def _is_chunk(head: bytes, order: Literal["little", "big"]) -> bool:
    """Return whether bytes look like the head of a chunk, which samples rarely do."""
    if head[:4] in _RIFF or head.startswith(_TAILS):
        return True
    size = int.from_bytes(head[4:8], order)
    return len(head) >= 8 and head[:4].strip().isalnum() and head[:4].isascii() and size <= _LONGEST_CHUNK_AFTER_DATA

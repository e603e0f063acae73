"""Reads the chunks of RIFF before the samples of a WAV, and those after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Final, Literal

from tympan.audio.pcm import SAMPLE_BYTES
from tympan.audio.source import ByteSource, More
from tympan.errors import AudioError

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
MOST_CHANNELS: Final = 11
RIFF: Final = (b"RIFF", b"RIFX", b"RF64", b"BW64")
MOST_CHUNKS: Final = 64
_LONGEST_HEADER = 4 << 20
_LONGEST_CHUNK_AFTER_DATA = 16 << 20
UNKNOWN_LENGTHS: Final = (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # written where the length is not known
TAILS: Final = (b"ID3", b"TAG", b"APET")  # tags of other formats, which some programs append


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
    order = byte_order(source.peek(4))
    layout, offset, long_bytes = b"", 12, 0
    for _ in range(MOST_CHUNKS):
        if offset > _LONGEST_HEADER:
            return None
        chunk = source.peek(8, offset)
        if len(chunk) < 8:
            raise AudioError("the WAV ends before its samples begin")
        kind, size = chunk[:4], int.from_bytes(chunk[4:], order)
        if kind == b"data":
            size = long_bytes if size == 0xFFFFFFFF else size
            return _header(layout, order == "big", offset + 8, None if size in UNKNOWN_LENGTHS else size)
        if kind == b"fmt ":
            layout = source.peek(min(size, 40), offset + 8)
        if kind == b"ds64":  # sizes of RF64 (EBU Tech 3306): of the file, then of the samples
            long_bytes = int.from_bytes(source.peek(8, offset + 16), "little")
        offset += 8 + size + size % 2
    return None


def coded_bytes(source: ByteSource) -> int | None:
    """Return the bytes up to the declared end of the samples; None if it is unknown."""
    offset = 12
    for _ in range(MOST_CHUNKS):
        chunk = source.peek(8, offset)
        size = int.from_bytes(chunk[4:], "little")
        if len(chunk) < 8 or offset > _LONGEST_HEADER:
            return None
        if chunk[:4] == b"data":
            return None if size in UNKNOWN_LENGTHS else offset + 8 + size
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
    order = byte_order(head[:4])
    offset = 12
    for _ in range(MOST_CHUNKS):
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


def byte_order(riff: bytes) -> Literal["little", "big"]:
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
    if not rate or not 1 <= channels <= MOST_CHANNELS:
        return None
    width = frame_bytes // channels if not frame_bytes % channels else 0
    if width * 8 < bits or tag != _PCM:
        width = -(-bits // 8) or width
    encoding = _ENCODINGS.get((tag, width))
    if encoding is None:
        return None
    return WavHeader(encoding, rate, channels, bits or width * 8, big_endian, data_offset, data_bytes)


def is_chunk(head: bytes, order: Literal["little", "big"]) -> bool:
    """Return whether bytes look like the head of a chunk, which samples rarely do."""
    if head[:4] in RIFF or head.startswith(TAILS):
        return True
    size = int.from_bytes(head[4:8], order)
    return len(head) >= 8 and head[:4].strip().isalnum() and head[:4].isascii() and size <= _LONGEST_CHUNK_AFTER_DATA

"""Finds the first frame of MPEG audio and AAC (ADTS): a stream may be joined within a frame, or begin with other bytes.

A frame header has only 11 set bits to recognize it by. A frame therefore counts if the next ones begin where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tympan.audio.source import ByteSource

JUNK_BYTES: Final = 64 << 10
"""How much may precede the first frame; zeros and line ends do not count."""
MOST_FRAMES_CHECKED: Final = 4
_FIRST_WINDOW = 4 << 10
_HEADER_BYTES = 7
_BLANK = b"\0\r\n"
_LONGEST_BLANK = 1 << 20

# Kilobits per second by layer (3 is layer I, 1 is layer III) and index, of MPEG-1 and of MPEG-2 and 2.5.
_MPEG1: Final = {
    3: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_MPEG2: Final = {
    3: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    1: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of a frame: libav's demuxer, what all frames of a stream share, and the length in bytes."""

    demuxer: str
    kind: bytes
    size: int


def frame_at(data: bytes, offset: int = 0) -> Frame | None:
    """Return the frame whose header is at `offset`, or None if there is none (or fewer than 7 bytes)."""
    head = data[offset : offset + _HEADER_BYTES]
    if len(head) < _HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return _adts(head)
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5; 3: layer I
    rate, speed = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or not layer or rate == 3 or speed in (0, 15):
        return None
    bits = (_MPEG1 if version == 3 else _MPEG2)[layer][speed - 1] * 1000
    hertz, padding = _RATES[version][rate], head[2] >> 1 & 1
    if layer == 3:
        size = (12 * bits // hertz + padding) * 4
    else:
        size = (72 if layer == 1 and version != 3 else 144) * bits // hertz + padding
    return Frame("mp3", bytes([head[1] & 0x1E, rate]), size)


def _adts(head: bytes) -> Frame | None:
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if head[2] >> 2 & 15 > 12 or size < _HEADER_BYTES:
        return None
    return Frame("aac", bytes([head[2] & 0xFC]), size)


def starts_here(source: ByteSource, offset: int) -> Frame | None:
    """Return the frame at `offset` if another one follows it, or if the input ends before; wait for the second one."""
    frame = frame_at(source.peek(_HEADER_BYTES, offset))
    if frame is None:
        return None
    head = source.peek(_HEADER_BYTES, offset + frame.size)
    following = frame_at(head)
    return frame if len(head) < _HEADER_BYTES or (following and following.kind == frame.kind) else None


def find_frame(source: ByteSource, start: int, most_bytes: int = JUNK_BYTES) -> tuple[int, Frame] | None:
    """Return the offset of the first frame from `start` on that others follow, and the frame, or None.

    It waits for up to `most_bytes`, in steps that do not depend on how the bytes are received.
    """
    start = _after_blank(source, start)
    window = _FIRST_WINDOW
    while True:
        data = source.peek(window, start)
        complete = len(data) < window
        found = _search(data, complete=complete)
        if found is not None:
            return start + found[0], found[1]
        if complete or window >= most_bytes:
            return None
        window = min(window * 4, most_bytes)


def _after_blank(source: ByteSource, start: int) -> int:
    """Return the offset of the first byte that is neither zero nor a line end."""
    offset = start
    while offset - start < _LONGEST_BLANK:
        data = source.peek(_FIRST_WINDOW, offset)
        blank = len(data) - len(data.lstrip(_BLANK))
        offset += blank
        if blank < _FIRST_WINDOW:
            break
    return offset


def _search(data: bytes, *, complete: bool) -> tuple[int, Frame] | None:
    """Return the first frame of a row of frames; at the end of the input, two are enough."""
    offset = data.find(b"\xff")
    while offset >= 0:
        frame = frame_at(data, offset)
        if frame is not None:
            count, at, following = 1, offset + frame.size, frame_at(data, offset + frame.size)
            while following is not None and following.kind == frame.kind and count < MOST_FRAMES_CHECKED:
                count, at = count + 1, at + following.size
                following = frame_at(data, at)
            ends = complete and at + _HEADER_BYTES > len(data)
            if count >= MOST_FRAMES_CHECKED or (ends and count >= 2):
                return offset, frame
        offset = data.find(b"\xff", offset + 1)
    return None

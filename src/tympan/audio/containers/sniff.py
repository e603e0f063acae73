"""Recognizes a container by its first bytes.

libav's probing is not used, since it waits for 2 KiB, which is a second of live Opus, and accepts playlists that open
other files and URLs.
"""

from __future__ import annotations

from dataclasses import dataclass

from tympan.audio.source import ByteSource

KNOWN = "wav, mp3, flac, ogg, webm, mkv, m4a, mp4, mov, aac, aiff, au, caf, amr"

_SIGNATURES = (
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"RIFF", "wav"),
    (b"RIFX", "wav"),
    (b"RF64", "wav"),
    (b"BW64", "wav"),
    (b"fLaC", "flac"),
    (b"FORM", "aiff"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"#!AMR", "amr"),
)
_MOV_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"uuid", b"pnot")
_LONGEST_PEEK = 16 << 20
_MOST_BOXES = 64


@dataclass(frozen=True, slots=True)
class Container:
    """The name of libav's demuxer, and whether it must seek: an MP4 with its index at the end."""

    name: str
    seeks: bool = False


def sniff(source: ByteSource) -> Container | None:
    """Return the container that `source` begins with, or None if it is none of `KNOWN`; wait for enough bytes."""
    head = source.peek(12, _after_id3(source))
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return Container(name)
    if head[4:8] in _MOV_BOXES:
        return Container("mov", seeks=_index_follows_samples(source))
    return _mpeg(head)


def _after_id3(source: ByteSource) -> int:
    """Return the end of an ID3v2 tag (https://id3.org/id3v2.3.0 §3.1), which may precede MP3, AAC and FLAC."""
    head = source.peek(10)
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size if size <= _LONGEST_PEEK else 0


def _mpeg(head: bytes) -> Container | None:
    """Recognize MPEG audio, which starts with 11 set bits, and ADTS, with 12 and the layer field 0."""
    if head.startswith(b"ID3"):
        return Container("mp3")
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return Container("aac")
    return Container("mp3") if head[1] & 0x06 else None


def _index_follows_samples(source: ByteSource) -> bool:
    """Return whether `mdat` precedes `moov` among the top-level boxes (ISO/IEC 14496-12 §4.2)."""
    offset = 0
    for _ in range(_MOST_BOXES):
        if offset > _LONGEST_PEEK:
            return True
        head = source.peek(16, offset)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind in (b"moov", b"moof"):
            return False
        if len(head) < 16 or kind == b"mdat" or size == 0:
            return True
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        offset += max(size, 8)
    return True

"""Recognizes a container by its first bytes.

libav's probing is not used for bytes of clients, since it waits for 2 KiB, which is a second of live Opus, and accepts
playlists that open other files and URLs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tympan.audio.containers.mpeg import find_frame, starts_here
from tympan.audio.source import ByteSource

KNOWN: Final = (
    "wav, w64, mp3, mp2, flac, ogg, opus, webm, mkv, m4a, mp4, mov, aac, ac3, eac3, dts, aiff, au, caf, amr, wma, "
    "wavpack, avi, flv, mpeg-ts, mpeg-ps"
)

_RIFF = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_SIGNATURES = (
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"fLaC", "flac"),
    (b"FORM", "aiff"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"#!AMR", "amr"),
    (b"FLV\1", "flv"),
    (b"wvpk", "wv"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"\0\0\1\xba", "mpeg"),
    (b"\x7f\xfe\x80\1", "dts"),
    (b"\xfe\x7f\1\x80", "dts"),
    (b"\x1f\xff\xe8\0", "dts"),
    (b"\xff\x1f\0\xe8", "dts"),
)
_MOV_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"uuid", b"pnot")
_LONGEST_PEEK = 16 << 20
_LONGEST_TRUSTED_TAG = 64 << 10
_JUNK_AFTER_TAG = 2 << 20
_MOST_BOXES = 64
_MOST_CHUNKS = 64
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes, and those before the sync byte
_TS_SYNC = 0x47
_TS_CHECKED = 4


@dataclass(frozen=True, slots=True)
class Container:
    """The name of libav's demuxer, whether it must seek, and where the container begins."""

    name: str
    seeks: bool = False
    start: int = 0


def sniff(source: ByteSource) -> Container | None:
    """Return the container that `source` begins with, or None if it is none of `KNOWN`; wait for enough bytes."""
    tag_end = after_id3(source)
    if tag_end > _LONGEST_TRUSTED_TAG:  # its length may be wrong, and the bytes may arrive slowly
        found = find_frame(source, 10, tag_end)
        if found is not None:
            return Container(found[1].demuxer, start=found[0])
    container = _at(source, tag_end)
    if container is not None:
        return replace(container, start=container.start + tag_end)
    found = find_frame(source, 10, _JUNK_AFTER_TAG) if tag_end else find_frame(source, 0)
    return Container(found[1].demuxer, start=found[0]) if found is not None else None


def after_id3(source: ByteSource) -> int:
    """Return the declared end of an ID3v2 tag (https://id3.org/id3v2.3.0 §3.1) before MP3, AAC or FLAC, or 0."""
    head = source.peek(10)
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size if size <= _LONGEST_PEEK else 10


def _at(source: ByteSource, offset: int) -> Container | None:
    head = source.peek(12, offset)
    if head[:4] in _RIFF:
        return Container("avi" if head[8:12] in (b"AVI ", b"AVIX", b"AMV ") else "wav")
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            needs_table = name in ("caf", "aiff") and _table_follows_samples(source, name)
            return Container(name, seeks=needs_table or name == "wv")  # libav finds no block in a WavPack pipe
    if head[:2] == b"\x0bw":
        return Container("eac3" if head[5:6] and head[5] >> 3 > 10 else "ac3")
    if head[4:8] in _MOV_BOXES and not offset:
        return Container("mov", seeks=_index_follows_samples(source))
    frame = starts_here(source, offset)
    if frame is not None:
        return Container(frame.demuxer)
    return _transport_stream(source, offset)


def _transport_stream(source: ByteSource, offset: int) -> Container | None:
    """Recognize MPEG-TS by its packets, of which the first may be incomplete."""
    head = source.peek(1, offset)
    size = 204 if _TS_SYNC in source.peek(205, offset) else 0
    if not head or not size:
        return None
    data = source.peek(204 * (_TS_CHECKED + 1), offset)
    for packet_bytes, before in _TS_PACKETS:
        for start in range(packet_bytes):
            syncs = data[start + before :: packet_bytes][:_TS_CHECKED]
            if len(syncs) == _TS_CHECKED and syncs.count(_TS_SYNC) == _TS_CHECKED:
                return Container("mpegts", start=start)
    return None


def _table_follows_samples(source: ByteSource, name: str) -> bool:
    """Return whether what describes the samples of a CAF or AIFF follows them: its packet table or its format."""
    offset, size_bytes, needed = (8, 8, {b"desc"}) if name == "caf" else (12, 4, {b"COMM"})
    samples = b"data" if name == "caf" else b"SSND"
    for _ in range(_MOST_CHUNKS):
        head = source.peek(4 + size_bytes, offset)
        if len(head) < 4 + size_bytes or offset > _LONGEST_PEEK:
            return False
        kind, size = head[:4], int.from_bytes(head[4:], "big")
        if kind == samples:
            return bool(needed)
        needed.discard(kind)
        if kind == b"desc":
            # Bytes per packet: 0 if packets differ, and a table (`pakt`) has their sizes.
            packet_bytes = source.peek(4, offset + 4 + size_bytes + 16)
            needed |= {b"pakt"} if not any(packet_bytes) else set()
        offset += 4 + size_bytes + size + (size % 2 if name == "aiff" else 0)
    return False


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


def describe_unknown(head: bytes) -> tuple[str, bool]:
    """Return why bytes that `sniff` does not recognize are refused, and whether they are certainly no audio."""
    if head.startswith(b"#EXTM3U") or head.startswith((b"ffconcat", b"[playlist]")):
        return "this is a playlist, not audio: pass the files that it lists", True
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not audio", True
    if _is_text(head):
        return "this is text, not audio", True
    return f"unknown format: expected {KNOWN}; the encoding of raw samples must be declared", False


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        characters = head[: len(head) & ~1].decode("utf-16", "replace")
        return all(character.isprintable() or character.isspace() for character in characters)
    if any(byte < 32 and byte not in b"\t\n\f\r\x1b" for byte in head) or 127 in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.end == len(head) and error.start > len(head) - 4  # a character may be cut
    return True

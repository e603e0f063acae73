"""Counts the entries of a container's headers before libav reads them.

libav stores every tag, and looks for duplicates among those before it, so the time to open a file grows with the square
of their number. It allocates tables of the length that the file declares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from tympan.audio.containers.sniff import Container, after_id3
from tympan.audio.source import ByteSource
from tympan.errors import AudioError

MOST_TAGS = 1_000
MOST_TRACKS = 32
MOST_TABLE_ENTRIES = 4_000_000  # of all tables together; a day of AAC has 3.7 million frames
LONGEST_HEADER_BYTES = 16 << 20

_FLAC_COMMENTS = 4
_ASF_TAGS = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")  # the object with the extended descriptions
_ASF_TRACK = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_TABLES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"trun": 4, b"elst": 12}
_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"moof", b"traf", b"edts", b"meta", b"ilst")


def check_header(source: ByteSource, kind: Container) -> None:
    """Check the header of a stream, and consume what precedes it.

    Args:
        source: The stream.
        kind: What `sniff` has recognized.

    Raises:
        AudioError: The header has too many tags, tracks or table entries, or declares more than it contains.
    """
    if kind.start and kind.start == after_id3(source):
        _check_id3(source)
    source.skip(kind.start)
    match kind.name:
        case "wav" | "avi":
            _check_riff(source)
        case "asf":
            _check_asf(source)
        case "flac":
            _check_flac(source)
        case "ogg":
            _check_ogg(source)
        case "mov":
            _check_mov(source)


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise AudioError(f"the file has more than {most} {what}")


def _check_id3(source: ByteSource) -> None:
    """Count the frames of an ID3v2 tag (https://id3.org/id3v2.3.0 §3.3)."""
    head = source.peek(10)
    end = min(10 + _synchsafe(head[6:10]), LONGEST_HEADER_BYTES)
    name_bytes, head_bytes = (3, 6) if head[3] == 2 else (4, 10)
    tag = source.peek(end - 10, 10)
    count, offset = 0, _extended_header_bytes(head, tag)
    while offset + head_bytes <= len(tag) and tag[offset]:
        size = tag[offset + name_bytes : offset + name_bytes * 2]
        offset += head_bytes + (_synchsafe(size) if head[3] == 4 else int.from_bytes(size, "big"))
        count += 1
        _check_count(count, MOST_TAGS, "tags")


def _extended_header_bytes(head: bytes, tag: bytes) -> int:
    """Return the size of what may precede the frames of a tag (ID3v2.3 §3.2, ID3v2.4 §3.2)."""
    if not head[5] & 0x40 or head[3] < 3:
        return 0
    return _synchsafe(tag[:4]) if head[3] == 4 else 4 + int.from_bytes(tag[:4], "big")


def _synchsafe(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(reversed(data)))


def _check_flac(source: ByteSource) -> None:
    """Count the comments of the metadata blocks (RFC 9639 §8)."""
    offset = 4
    for _ in range(MOST_TAGS):
        head = source.peek(4, offset)
        if len(head) < 4 or offset > LONGEST_HEADER_BYTES:
            return
        if head[0] & 0x7F == _FLAC_COMMENTS:
            _check_count(_vorbis_comments(source, offset + 4), MOST_TAGS, "tags")
        if head[0] & 0x80:
            return
        offset += 4 + int.from_bytes(head[1:4], "big")
    raise AudioError(f"the file has more than {MOST_TAGS} metadata blocks")


def _check_riff(source: ByteSource) -> None:
    """Count the tracks (`strl`) and the tags (in `INFO`) of the chunks before the samples of a WAV or AVI."""
    counts = {b"strl": 0, b"INFO": 0}
    offset, chunks = 12, 0
    while offset <= LONGEST_HEADER_BYTES:
        chunks += 1
        _check_count(chunks, MOST_TAGS, "chunks before its samples")
        head = source.peek(12, offset)
        kind, size, listed = head[:4], int.from_bytes(head[4:8], "little"), head[8:12]
        if len(head) < 12 or kind in (b"data", b"movi") or listed == b"movi":
            return
        if kind == b"LIST" and listed == b"INFO":
            _check_count(size // 8, MOST_TAGS * 8, "tags")
            tags = source.peek(min(size, LONGEST_HEADER_BYTES) - 4, offset + 12)
            counts[listed] += sum(1 for _ in _riff_chunks(tags))
            _check_count(counts[listed], MOST_TAGS, "tags")
        if kind == b"LIST" and listed in (b"hdrl", b"strl"):
            counts[b"strl"] += listed == b"strl"
            _check_count(counts[b"strl"], MOST_TRACKS, "tracks")
            offset += 12
        else:
            offset += 8 + size + size % 2


def _riff_chunks(data: bytes) -> Iterator[int]:
    """Yield the offset of each chunk."""
    offset = 0
    while offset + 8 <= len(data):
        yield offset
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        offset += 8 + size + size % 2


def _check_asf(source: ByteSource) -> None:
    """Count the objects and tags of the header of an ASF file (Advanced Systems Format §3)."""
    head = source.peek(30)
    offset, end = 30, min(int.from_bytes(head[16:24], "little"), LONGEST_HEADER_BYTES)
    objects = tags = tracks = 0
    while offset + 24 <= end and len(head := source.peek(26, offset)) == 26:
        objects += 1
        _check_count(objects, MOST_TAGS, "objects in its header")
        size = int.from_bytes(head[16:24], "little")
        if head.startswith(_ASF_TAGS):
            tags += int.from_bytes(head[24:26], "little")
            _check_count(tags, MOST_TAGS, "tags")
        tracks += head.startswith(_ASF_TRACK)
        _check_count(tracks, MOST_TRACKS, "tracks")
        offset += max(size, 24)


def _check_ogg(source: ByteSource) -> None:
    """Count the comments in the second packet of Opus and Vorbis (RFC 7845 §5.2)."""
    first = source.peek(27)
    if len(first) < 27:
        return
    second = 27 + first[26] + sum(source.peek(first[26], 27))
    head = source.peek(27, second)
    if len(head) < 27 or second > LONGEST_HEADER_BYTES:
        return
    packet = second + 27 + head[26]
    magic = source.peek(8, packet)
    for name in (b"OpusTags", b"\x03vorbis"):
        if magic.startswith(name):
            _check_count(_vorbis_comments(source, packet + len(name)), MOST_TAGS, "tags")


def _vorbis_comments(source: ByteSource, offset: int) -> int:
    vendor = int.from_bytes(source.peek(4, offset), "little")
    if vendor > LONGEST_HEADER_BYTES:
        raise AudioError("a tag of the file is too long")
    return int.from_bytes(source.peek(4, offset + 4 + vendor), "little")


def _check_mov(source: ByteSource) -> None:
    """Check `moov` (ISO/IEC 14496-12) if it precedes the samples."""
    offset = 0
    while offset <= LONGEST_HEADER_BYTES:
        head = source.peek(16, offset)
        size, kind = _box(head)
        if len(head) < 8 or size < 8 or kind == b"mdat":
            return
        if kind == b"moov":
            _check_index(source.peek(_index_bytes(size), offset))
            return
        offset += size


def check_index_at_end(file: IO[bytes]) -> None:
    """Check the `moov` box of a whole MP4 file, and return to its beginning.

    Raises:
        AudioError: As `check_header`, or there is no `moov`.
    """
    offset, found = 0, False
    while len(head := _read_at(file, offset, 16)) >= 8:
        size, kind = _box(head)
        if kind == b"moov":
            found = True
            _check_index(_read_at(file, offset, _index_bytes(size)))
        if size < 8:
            break
        offset += size
    if not found:
        raise AudioError(
            "the MP4 has no index (`moov`): its recording or transfer was interrupted, or it is a segment without its "
            "initialization"
        )
    file.seek(0)


def _read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _index_bytes(size: int) -> int:
    if size > LONGEST_HEADER_BYTES:
        raise AudioError(f"the index of the file is larger than {LONGEST_HEADER_BYTES >> 20} MiB")
    return size


def _check_index(box: bytes) -> None:
    tracks = entries = boxes = 0
    for kind, body in _walk(box):
        boxes += 1
        tracks += kind == b"trak"
        _check_count(tracks, MOST_TRACKS, "tracks")
        _check_count(boxes, MOST_TAGS * 4, "boxes")
        if kind == b"stsz":
            count = int.from_bytes(body[8:12], "big")
            width = 0 if int.from_bytes(body[4:8], "big") else 4  # 0: all samples have one size
        elif kind in _TABLES:
            count, width = int.from_bytes(body[4:8], "big"), _TABLES[kind]
        else:
            continue
        if count * width > len(body):
            raise AudioError(f"the file declares {count} entries in a table of {len(body)} bytes")
        entries += count
        _check_count(entries, MOST_TABLE_ENTRIES, "table entries")


def _walk(box: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the boxes within `box`, depth first."""
    waiting = [memoryview(box)]
    while waiting:
        data = waiting.pop()
        while len(data) >= 8:
            size, kind = _box(bytes(data[:16]))
            head = 16 if int.from_bytes(data[:4], "big") == 1 else 8
            size = min(size, len(data)) if size >= head else len(data)
            body = data[head:size]
            yield kind, body
            if kind in _BOXES:
                waiting.append(body[4:] if kind == b"meta" else body)
            data = data[size:]


def _box(head: bytes) -> tuple[int, bytes]:
    size = int.from_bytes(head[:4], "big")
    return (int.from_bytes(head[8:16], "big") if size == 1 else size), head[4:8]

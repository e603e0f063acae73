"""Containers that are made to cost time and memory: headers with more than any file has, lengths that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache

from support.audio_encoding import encode, voice


@cache
def sound(container: str, codec: str, *, live: bool = False, options: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return half a second of a voice in a container."""
    rate = {"libopus": 48_000, "ac3": 48_000, "eac3": 48_000, "libmp3lame": 22_050, "wmav2": 44_100}.get(codec, 24_000)
    return encode(voice(0.5, rate), rate, container, codec, live=live, options=dict(options))


def comments(count: int) -> bytes:
    """Return Vorbis comments, as FLAC and Ogg have them."""
    tags = b"".join(struct.pack("<I", len(text)) + text for text in (b"T%d=x" % n for n in range(count)))
    return struct.pack("<I", 4) + b"test" + struct.pack("<I", count) + tags


def flac_with_tags(count: int) -> bytes:
    data = sound("flac", "flac")
    block = comments(count)
    return data[:42] + bytes([4]) + len(block).to_bytes(3, "big") + block + data[42:]


def mp3_with_tags(count: int) -> bytes:
    frames = b"".join(b"TXXX" + struct.pack(">I", 7) + b"\0\0\0%06d" % n for n in range(count))
    size = bytes((len(frames) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return (
        b"ID3\3\0\0" + size + frames + sound("mp3", "libmp3lame", options=(("write_xing", "0"), ("id3v2_version", "0")))
    )


def opus_with_tags(count: int) -> bytes:
    """Return the header of an Ogg stream; the page of the tags is longer than pages are, which libav accepts."""
    page = b"OggS\0\2" + bytes(20) + b"\1\x13" + b"OpusHead\1\1\0\0" + struct.pack("<I", 48_000) + b"\0\0\0"
    packet = b"OpusTags" + comments(count)
    pages = [
        b"OggS\0" + bytes([number > 0]) + bytes(20) + b"\xff" + b"\xff" * 255 + packet[at : at + 65_025]
        for number, at in enumerate(range(0, len(packet), 65_025))
    ]
    return page + b"".join(pages)


def box(kind: bytes, body: bytes) -> bytes:
    """Return an MP4 box."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4(table: bytes, tracks: int = 1) -> bytes:
    """Return an MP4 whose tracks have one table each."""
    track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table))))
    return box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", track * tracks) + box(b"mdat", bytes(1_000))


def mp4_with_table(entries: int) -> bytes:
    """Return an MP4 that declares a table of sample sizes without having it."""
    return mp4(box(b"stsz", struct.pack(">III", 0, 0, entries)))


SOUNDS: dict[str, Callable[[], bytes]] = {
    "flac": lambda: sound("flac", "flac"),
    "ogg": lambda: sound("ogg", "libopus"),
    "webm": lambda: sound("webm", "libopus"),
    "live webm": lambda: sound("webm", "libopus", live=True),
    "mp4, index last": lambda: sound("mp4", "aac"),
    "mp4, fragments": lambda: sound("mp4", "aac", live=True, options=(("movflags", "frag_keyframe+empty_moov"),)),
    "mp3": lambda: sound("mp3", "libmp3lame"),
    "wav": lambda: sound("wav", "pcm_s16le"),
    "aac": lambda: sound("adts", "aac"),
    "aiff": lambda: sound("aiff", "pcm_s16be"),
    "wav adpcm": lambda: sound("wav", "adpcm_ima_wav"),
    "w64": lambda: sound("w64", "pcm_s16le"),
    "caf": lambda: sound("caf", "alac"),
    "wavpack": lambda: sound("wv", "wavpack"),
    "asf": lambda: sound("asf", "wmav2"),
    "avi": lambda: sound("avi", "libmp3lame"),
    "flv": lambda: sound("flv", "libmp3lame"),
    "ts": lambda: sound("mpegts", "mp2"),
    "ps": lambda: sound("vob", "mp2"),
    "mkv ac3": lambda: sound("matroska", "ac3"),
    "eac3": lambda: sound("eac3", "eac3"),
}


def hostile(seed: int) -> tuple[str, bytes]:
    """Return a description and a file, the same for the same seed."""
    chosen = random.Random(seed)
    name = chosen.choice(list(_KINDS))
    return f"{name}, seed {seed}", _KINDS[name](chosen)


def _any_sound(chosen: random.Random) -> bytes:
    return SOUNDS[chosen.choice(list(SOUNDS))]()


def _count(chosen: random.Random) -> int:
    return int(2 ** chosen.uniform(1, 16))


def _declared(chosen: random.Random) -> int:
    return chosen.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, chosen.getrandbits(32), int(2 ** chosen.uniform(0, 32))])


def _flipped(chosen: random.Random) -> bytes:
    data = bytearray(_any_sound(chosen))
    end = chosen.choice([64, 512, len(data)])
    for _ in range(chosen.randint(1, 30)):
        data[chosen.randrange(min(end, len(data)))] = chosen.getrandbits(8)
    return bytes(data)


def _lying_length(chosen: random.Random) -> bytes:
    """Replace four bytes of the header, where a length may be, by a large number of either byte order."""
    data = bytearray(_any_sound(chosen))
    at = chosen.randrange(min(400, len(data) - 4))
    data[at : at + 4] = struct.pack(chosen.choice("<>") + "I", _declared(chosen))
    return bytes(data)


def _spliced(chosen: random.Random) -> bytes:
    first, second = _any_sound(chosen), _any_sound(chosen)
    return first[: chosen.randrange(len(first))] + second[chosen.randrange(len(second)) :]


def _repeated(chosen: random.Random) -> bytes:
    """Repeat a part of a file, which may be a header, many times."""
    data = _any_sound(chosen)
    start = chosen.randrange(min(300, len(data)))
    part = data[start : start + chosen.randint(1, 200)]
    return data[:start] + part * chosen.randint(10, 5_000) + data[start:]


def _nested(chosen: random.Random) -> bytes:
    data = b""
    kinds = [b"moov", b"trak", b"mdia", b"udta", b"meta", b"ilst", b"moof", b"traf"]
    for _ in range(chosen.randint(10, 3_000)):
        data = box(chosen.choice(kinds), data)
    return box(b"ftyp", b"isom\0\0\2\0") + data


def _tables(chosen: random.Random) -> bytes:
    tables = b"".join(
        box(
            chosen.choice([b"stsz", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"elst", b"stss", b"trun", b"sidx"]),
            struct.pack(">III", 0, chosen.randint(0, 1), _declared(chosen)) + chosen.randbytes(chosen.randint(0, 400)),
        )
        for _ in range(chosen.randint(1, 8))
    )
    return mp4(tables, tracks=chosen.choice([1, 2, 30, 100]))


def _endless(chosen: random.Random) -> bytes:
    """Begin with a box, an element or a chunk that does not end."""
    head = chosen.choice(
        [
            b"\0\0\0\1free" + (1 << chosen.randint(20, 62)).to_bytes(8, "big"),
            b"\0\0\0\0mdat",
            b"\x1aE\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff",
            b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\x7f",
            b"FORM\x7f\xff\xff\xffAIFFCOMT\x7f\xff\xff\xf0",
            b"ID3\4\0\0\x7f\x7f\x7f\x7f",
            b"fLaC\x04\xff\xff\xff",
        ]
    )
    return head + chosen.randbytes(chosen.randint(0, 100_000))


_KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "FLAC tags": lambda chosen: flac_with_tags(_count(chosen)),
    "ID3 frames": lambda chosen: mp3_with_tags(_count(chosen)),
    "Opus tags": lambda chosen: opus_with_tags(_count(chosen)),
    "MP4 table": lambda chosen: mp4_with_table(_declared(chosen)),
    "tables": _tables,
    "nesting": _nested,
    "endless": _endless,
    "flipped bytes": _flipped,
    "lying length": _lying_length,
    "spliced": _spliced,
    "repeated": _repeated,
    "cut": lambda chosen: (data := _any_sound(chosen))[: chosen.randrange(len(data))],
    "noise": lambda chosen: _any_sound(chosen)[: chosen.randint(4, 64)] + chosen.randbytes(20_000),
}

"""Headers with more entries than any file has are refused before libav reads them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from support.audio_decoding import decoded
from support.audio_encoding import encode, voice

from tympan.audio.containers.inspect import MOST_TAGS
from tympan.errors import AudioError
from tympan.messages import AudioFormat

AUTO = AudioFormat("auto", 24_000, 1)


def comments(count: int) -> bytes:
    tags = b"".join(struct.pack("<I", len(text)) + text for text in (b"T%d=x" % n for n in range(count)))
    return struct.pack("<I", 4) + b"test" + struct.pack("<I", count) + tags


def flac_with_tags(count: int) -> bytes:
    data = encode(voice(0.5, 24_000), 24_000, "flac", "flac")
    block = comments(count)
    return data[:42] + bytes([4]) + len(block).to_bytes(3, "big") + block + data[42:]


def mp3_with_tags(count: int) -> bytes:
    frames = b"".join(b"TXXX" + struct.pack(">I", 6) + b"\0\0\0%05d" % n for n in range(count))
    size = bytes((len(frames) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    options = {"write_xing": "0", "id3v2_version": "0"}
    return b"ID3\3\0\0" + size + frames + encode(voice(0.5, 24_000), 24_000, "mp3", "libmp3lame", options=options)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4(table: bytes, tracks: int = 1) -> bytes:
    track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table))))
    return box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", track * tracks) + box(b"mdat", bytes(1_000))


@pytest.mark.parametrize("tagged", [flac_with_tags, mp3_with_tags])
def test_many_tags(tagged: object) -> None:
    assert callable(tagged)
    assert len(decoded([tagged(20)], AUTO)) > 11_000
    with pytest.raises(AudioError, match=f"more than {MOST_TAGS} tags"):
        decoded([tagged(MOST_TAGS + 1)], AUTO)


def test_many_opus_tags() -> None:
    page = b"OggS\0\2" + bytes(20) + b"\1\x13" + b"OpusHead\1\1\0\0" + struct.pack("<I", 48_000) + b"\0\0\0"
    tags = b"OpusTags" + comments(2_000)
    data = page + b"OggS\0\0" + bytes(20) + b"\xff" + b"\xff" * 255 + tags
    with pytest.raises(AudioError, match=f"more than {MOST_TAGS} tags"):
        decoded([data], AUTO)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (mp4(box(b"stsz", struct.pack(">III", 0, 0, 60_000_000))), "declares 60000000 entries in a table of 12 bytes"),
        (mp4(box(b"stts", struct.pack(">II", 0, 1 << 31))), "entries in a table of 8 bytes"),
        (mp4(b"", tracks=40), "more than 32 tracks"),
        (mp4(box(b"stsz", struct.pack(">III", 0, 1, 60_000_000))), "more than 4000000 table entries"),
    ],
)
def test_mp4_tables(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        decoded([data], AUTO)
    moov_last = data[:16] + data[-1_008:] + data[16:-1_008]
    with pytest.raises(AudioError, match=message):
        decoded([moov_last], AUTO)


def riff(kind: bytes, *chunks: bytes) -> bytes:
    body = kind + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def wav_with_tags(count: int) -> bytes:
    data = encode(voice(0.5, 24_000), 24_000, "wav", "adpcm_ima_wav")
    tags = chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"x\0") * count)
    return riff(b"WAVE", tags, data[12:])


def avi_with_tags(count: int) -> bytes:
    data = encode(voice(0.5, 24_000), 24_000, "avi", "pcm_s16le")
    at = data.index(b"LIST", data.index(b"movi") - 8)
    tags = chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"x\0") * count)
    return riff(b"AVI ", data[12:at], tags, data[at:])


def asf_with_tags(count: int) -> bytes:
    data = encode(voice(0.5, 44_100), 44_100, "asf", "wmav2")
    name = "a\0".encode("utf-16-le")
    one = struct.pack("<H", len(name)) + name + struct.pack("<HH", 0, len(name)) + name
    body = struct.pack("<H", count) + one * count
    tags = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850") + struct.pack("<Q", 24 + len(body)) + body
    size, objects = struct.unpack("<QI", data[16:28])
    return data[:16] + struct.pack("<QI", size + len(tags), objects + 1) + data[28:30] + tags + data[30:]


@pytest.mark.parametrize("tagged", [wav_with_tags, avi_with_tags, asf_with_tags])
def test_many_tags_of_riff_and_asf(tagged: Callable[[int], bytes]) -> None:
    assert len(decoded([tagged(20)], AUTO)) > 11_000
    with pytest.raises(AudioError, match=f"more than {MOST_TAGS} tags"):
        decoded([tagged(MOST_TAGS + 1)], AUTO)


def test_many_tracks_of_an_avi() -> None:
    data = encode(voice(0.5, 24_000), 24_000, "avi", "pcm_s16le")
    start = data.index(b"LIST", 24)
    size = 8 + struct.unpack("<I", data[start + 4 : start + 8])[0]
    for copies, refused in ((20, False), (40, True)):
        copied = bytearray(data[:start] + data[start : start + size] * copies + data[start + size :])
        copied[16:20] = struct.pack("<I", struct.unpack("<I", data[16:20])[0] + size * (copies - 1))
        outcome = ""
        try:
            decoded([bytes(copied)], AUTO)
        except AudioError as error:
            outcome = str(error)
        assert ("more than 32 tracks" in outcome) == refused


def test_tags_in_any_encoding() -> None:
    """libav returns tags as bytes, of which some programs write Latin-1."""
    data = wav_with_tags(1).replace(b"ICMT\2\0\0\0x\0", b"ICMT\2\0\0\0\xe9\0")
    assert len(decoded([data], AUTO)) > 11_000

"""The table of audio inputs: what is sent through the command line, uploads and live streams, and what must come out.

The list of formats in docs/files.md is generated from it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av

from support.audio_encoding import Part, Track, encode, mux, voice
from support.hostile_containers import box

SECONDS = 1.0
LATE = 0.7
_PLAIN_MP3 = {"write_xing": "0", "id3v2_version": "0"}


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        make: Makes the bytes.
        sounds: Start and end of the sound in seconds, for every time that it can be heard.
        warnings: Codes of the warnings of the decoder.
        error: What the message contains if the input is refused.
        container, codec: Names for the list of formats; empty for variants of a format that is already listed.
        local: Whether only local files may have this format, and the suffix by which it is recognized.
    """

    make: Callable[[], bytes]
    sounds: tuple[tuple[float, float], ...] = ((0.0, SECONDS),)
    warnings: tuple[str, ...] = ()
    error: str = ""
    container: str = ""
    codec: str = ""
    local: str = ""


def _encoded(container: str, codec: str, rate: int, *, live: bool = False, **options: str) -> Callable[[], bytes]:
    return lambda: encode(voice(SECONDS, rate), rate, container, codec, live=live, options=options)


def _format(
    name: str,
    codec: str,
    container: str,
    encoder: str,
    rate: int,
    *,
    live: bool = False,
    local: str = "",
    **options: str,
) -> Input:
    return Input(_encoded(container, encoder, rate, live=live, **options), container=name, codec=codec, local=local)


def caf_opus() -> bytes:
    """Return Opus in CAF, whose packet table follows the packets; libav does not write it."""
    with av.open(io.BytesIO(_encoded("ogg", "libopus", 48_000)())) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    sizes = b"".join(bytes([0x80 | len(packet) >> 7, len(packet) & 0x7F]) for packet in packets)
    head = struct.pack(">d4sIIIII", 48_000.0, b"opus", 0, 0, 960, 1, 0)
    table = struct.pack(">qqii", len(packets), len(packets) * 960, 0, 0) + sizes
    chunks = ((b"desc", head), (b"data", bytes(4) + b"".join(packets)), (b"pakt", table))
    return b"caff\0\1\0\0" + b"".join(kind + struct.pack(">q", len(body)) + body for kind, body in chunks)


FORMATS = {
    "wav": _format("WAV", "PCM", "wav", "pcm_s16le", 16_000),
    "wav float": _format("WAV", "float", "wav", "pcm_f32le", 48_000),
    "wav mulaw": _format("WAV", "µ-law, A-law", "wav", "pcm_mulaw", 8_000),
    "wav adpcm": _format("WAV", "ADPCM", "wav", "adpcm_ima_wav", 16_000),
    "wav g722": _format("WAV", "G.722", "wav", "g722", 16_000),
    "wav g726": _format("WAV", "G.726", "wav", "g726", 8_000),
    "wav ac3": _format("WAV", "AC-3", "wav", "ac3", 48_000),
    "w64": _format("Wave64", "PCM", "w64", "pcm_s16le", 16_000),
    "aiff": _format("AIFF", "PCM", "aiff", "pcm_s16be", 16_000),
    "au": _format("AU", "PCM", "au", "pcm_s16be", 16_000, live=True),
    "caf": _format("CAF", "PCM", "caf", "pcm_s16be", 16_000),
    "caf alac": _format("CAF", "ALAC", "caf", "alac", 16_000),
    "caf opus": Input(caf_opus, container="CAF", codec="Opus"),
    "flac": _format("FLAC", "FLAC", "flac", "flac", 16_000),
    "wavpack": _format("WavPack", "WavPack", "wv", "wavpack", 16_000),
    "ogg opus": _format("Ogg", "Opus", "ogg", "libopus", 48_000),
    "webm": _format("WebM, Matroska", "Opus", "webm", "libopus", 48_000, live=True),
    "mkv": _format("WebM, Matroska", "PCM", "matroska", "pcm_s16le", 16_000),
    "mkv ac3": _format("WebM, Matroska", "AC-3", "matroska", "ac3", 48_000),
    "mkv eac3": _format("WebM, Matroska", "E-AC-3", "matroska", "eac3", 48_000),
    "mp4": _format("MP4, M4A, MOV", "AAC", "mp4", "aac", 44_100),
    "mp4, index first": Input(_encoded("mp4", "aac", 44_100, movflags="faststart")),
    "mp4, fragments": Input(_encoded("mp4", "aac", 48_000, live=True, movflags="frag_keyframe+empty_moov")),
    "mov alac": _format("MP4, M4A, MOV", "ALAC", "mov", "alac", 16_000),
    "mp4 ac3": _format("MP4, M4A, MOV", "AC-3", "mp4", "ac3", 48_000),
    "mp3": _format("MP3", "MP3", "mp3", "libmp3lame", 44_100),
    "mp2": _format("MP2", "MP2", "mp2", "mp2", 16_000),
    "aac": _format("AAC (ADTS)", "AAC", "adts", "aac", 24_000, live=True),
    "ac3": _format("AC-3", "AC-3", "ac3", "ac3", 48_000),
    "eac3": _format("E-AC-3", "E-AC-3", "eac3", "eac3", 48_000),
    "amr": _format("AMR", "AMR-NB", "amr", "libopencore_amrnb", 8_000),
    "wma": _format("ASF, WMA", "WMA", "asf", "wmav2", 16_000),
    "avi mp3": _format("AVI", "MP3", "avi", "libmp3lame", 16_000),
    "avi": _format("AVI", "PCM", "avi", "pcm_s16le", 16_000),
    "flv": _format("FLV", "AAC", "flv", "aac", 16_000),
    "flv mp3": _format("FLV", "MP3", "flv", "libmp3lame", 22_050),
    "ts": _format("MPEG-TS", "MP2", "mpegts", "mp2", 16_000),
    "ts aac": _format("MPEG-TS", "AAC", "mpegts", "aac", 48_000),
    "ts ac3": _format("MPEG-TS", "AC-3", "mpegts", "ac3", 48_000),
    "ps": _format("MPEG-PS", "MP2", "vob", "mp2", 48_000),
    "tta": _format("TTA", "TTA", "tta", "tta", 16_000, local=".tta"),
    "g722": _format("G.722 (by suffix)", "G.722", "g722", "g722", 16_000, local=".g722"),
}


def _late(container: str, codec: str, rate: int, **options: str) -> Callable[[], bytes]:
    return lambda: mux(container, [Track(codec, rate, [Part(LATE, voice(SECONDS, rate))])], video=2.0, options=options)


def _cut_by_edit_list() -> bytes:
    """An MP4 whose edit list starts half a second into the audio."""
    data = bytearray(_encoded("mp4", "aac", 16_000)())
    at = data.index(b"elst") + 12
    data[at : at + 8] = struct.pack(">Ii", 500, 8_000)
    return bytes(data)


def _parts(container: str, codec: str, rate: int, *starts: float) -> Callable[[], bytes]:
    return lambda: mux(container, [Track(codec, rate, [Part(start, voice(SECONDS, rate)) for start in starts])])


def _tracks(container: str, default: int) -> bytes:
    """Two tracks: silence, and a sound after half a second."""
    rate = 48_000
    silent = Track("libopus", rate, [Part(0.0, voice(SECONDS, rate) * 0)], default=default == 1)
    speaking = Track(
        "libopus", rate, [Part(0.0, voice(0.5, rate) * 0), Part(0.5, voice(SECONDS, rate))], default=default == 2
    )
    return mux(container, [silent, speaking])


TIMES = {
    "audio late, mkv": Input(_late("matroska", "libopus", 48_000), sounds=((LATE, LATE + SECONDS),)),
    "audio late, mp4": Input(_late("mp4", "aac", 16_000), sounds=((LATE, LATE + SECONDS),)),
    "audio late, mp4, index first": Input(
        _late("mp4", "aac", 16_000, movflags="faststart"), sounds=((LATE, LATE + SECONDS),)
    ),
    "audio late, ts": Input(_late("mpegts", "mp2", 48_000), sounds=((LATE, LATE + SECONDS),)),
    "audio late, ps": Input(_late("vob", "mp2", 48_000), sounds=((LATE, LATE + SECONDS),)),
    "audio late, flv": Input(_late("flv", "libmp3lame", 22_050), sounds=((LATE, LATE + SECONDS),)),
    "edit list that cuts": Input(_cut_by_edit_list, sounds=((0.0, 0.5),)),
    "gap, mkv": Input(_parts("matroska", "libopus", 48_000, 0.0, 4.0), sounds=((0.0, 1.0), (4.0, 5.0))),
    "gap, mp4": Input(_parts("mp4", "aac", 16_000, 0.0, 4.0), sounds=((0.0, 1.0), (4.0, 5.0))),
    "gap, ts": Input(_parts("mpegts", "mp2", 48_000, 0.0, 4.0), sounds=((0.0, 1.0), (4.0, 5.0))),
    "overlap": Input(_parts("matroska", "pcm_s16le", 16_000, 0.0, 0.6, 3.0), sounds=((0.0, 1.6), (3.0, 4.0))),
    "begins again": Input(lambda: _encoded("mpegts", "mp2", 48_000)() * 2, sounds=((0.0, 2.0),)),
    "second track is the default": Input(lambda: _tracks("matroska", 2), ((0.5, 1.5),), ("audio_track",)),
    "first track is the default": Input(lambda: _tracks("matroska", 1), (), ("audio_track",)),
}


def _antiphase() -> bytes:
    both = voice(SECONDS, 16_000, 2)
    both[:, 1] = -both[:, 0]
    return encode(both, 16_000, "flac", "flac")


def _mp3(before: bytes, skip: int = 0) -> Callable[[], bytes]:
    return lambda: before + _encoded("mp3", "libmp3lame", 16_000, live=True, **_PLAIN_MP3)()[skip:]


def _joined_aac() -> bytes:
    return _encoded("adts", "aac", 24_000, live=True)()[150:]


def _id3(declared: int) -> bytes:
    return b"ID3\3\0\0" + bytes((declared >> shift) & 0x7F for shift in (21, 14, 7, 0))


_CHAIN = (_encoded("ogg", "libopus", 48_000), lambda: encode(voice(SECONDS, 48_000, 2), 48_000, "ogg", "libopus"))

STREAMS = {
    "stereo in antiphase": Input(_antiphase, warnings=("antiphase",)),
    "mp3 joined within a frame": Input(_mp3(b"", 100)),
    "mp3 after zeros": Input(_mp3(bytes(30_000))),
    "mp3 after a line end": Input(_mp3(b"\r\n")),
    "mp3 after a short ID3 length": Input(_mp3(_id3(10) + bytes(2_000))),
    "mp3 after a long ID3 length": Input(_mp3(_id3(1_000_000))),
    "aac joined within a frame": Input(_joined_aac),
    "ts joined within a packet": Input(lambda: _encoded("mpegts", "mp2", 16_000)()[188 * 3 - 50 :]),
    "chained ogg": Input(lambda: _CHAIN[0]() + _CHAIN[1](), sounds=((0.0, 2.0),)),
}


def wav_chunks(*chunks: tuple[bytes, bytes], order: str = "<", magic: bytes = b"RIFF") -> bytes:
    """Return a RIFF file of these chunks."""
    body = b"".join(
        kind + struct.pack(order + "I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return magic + struct.pack(order + "I", 4 + len(body)) + b"WAVE" + body


def layout(bits: int, width: int, order: str = "<", rate: int = 16_000, tag: int = 1) -> bytes:
    """Return the body of a `fmt ` chunk of one channel, `width` bytes per sample."""
    return struct.pack(order + "HHIIHH", tag, 1, rate, rate * width, width, bits)


def pcm(width: int = 2, order: str = "<", *, shift: int = 0, start: float = 0.0, end: float = SECONDS) -> bytes:
    """Return a part of the sound as integers of `width` bytes, shifted to the left."""
    values = voice(SECONDS, 16_000)[round(start * 16_000) : round(end * 16_000), 0]
    scaled = (values * (2 ** (8 * width - 1 - shift) - 1)).astype(f"{order}i{width}")
    return scaled.tobytes()


def _stale_size() -> bytes:
    data = bytearray(wav_chunks((b"fmt ", layout(16, 2)), (b"data", pcm())))
    data[40:44] = struct.pack("<I", 10_000)
    return bytes(data)


def _coded(declared: int | None) -> bytes:
    data = bytearray(_encoded("wav", "g722", 16_000)())
    at = data.index(b"data") + 4
    data[at : at + 4] = data[at : at + 4] if declared is None else struct.pack("<I", declared)
    return bytes(data)


def _rf64(size: int) -> bytes:
    sizes = struct.pack("<QQQI", 0, size, 0, 0)
    data = wav_chunks((b"ds64", sizes), (b"fmt ", layout(16, 2)), (b"data", pcm()), (b"LIST", bytes(4)), magic=b"RF64")
    if not size:
        data = data[:-12]
    at = data.index(b"data") + 4
    return data[:at] + b"\xff" * 4 + data[at + 4 :]


def _floats_of_24_bits() -> bytes:
    return (voice(SECONDS, 16_000)[:, 0] * 2**23).astype("<f4").tobytes()


WAVS = {
    "wav with a stale length": Input(_stale_size, warnings=("wav_length",)),
    "wav of a codec with a stale length": Input(lambda: _coded(1_000), warnings=("wav_length",)),
    "wav of a codec and tags": Input(lambda: _coded(None) + b"LIST\x0e\0\0\0INFOISFT\2\0\0\0x\0"),
    "wav with a length of 0": Input(lambda: _stale_size()[:40] + bytes(4) + _stale_size()[44:]),
    "two wavs": Input(
        lambda: (
            wav_chunks((b"fmt ", layout(16, 2)), (b"data", pcm()), (b"LIST", b"INFOISFT\2\0\0\0x\0"))
            + _encoded("wav", "pcm_s16le", 8_000)()
        ),
        ((0.0, 2.0),),
        ("wav_length",),
    ),
    "wav with two data chunks": Input(
        lambda: wav_chunks((b"fmt ", layout(16, 2)), (b"data", pcm(end=0.5)), (b"data", pcm(start=0.5)))
    ),
    "rf64": Input(lambda: _rf64(32_000)),
    "rf64 without a length": Input(lambda: _rf64(0)),
    "wav of 24 bits in 32": Input(lambda: wav_chunks((b"fmt ", layout(24, 4)), (b"data", pcm(4)))),
    "wav of 24 bits in the lower bytes": Input(
        lambda: wav_chunks((b"fmt ", layout(24, 4)), (b"data", pcm(4, shift=8)))
    ),
    "wav of 24 bits as floats": Input(lambda: wav_chunks((b"fmt ", layout(24, 4)), (b"data", _floats_of_24_bits()))),
    "rifx": Input(lambda: wav_chunks((b"fmt ", layout(16, 2, ">")), (b"data", pcm(2, ">")), order=">", magic=b"RIFX")),
    "wav with a fmt chunk of 14 bytes": Input(lambda: wav_chunks((b"fmt ", layout(16, 2)[:14]), (b"data", pcm()))),
    "wav with data first": Input(lambda: wav_chunks((b"data", pcm()), (b"fmt ", layout(16, 2)))),
}


def _without_index() -> bytes:
    return box(b"ftyp", b"isom\0\0\2\0") + box(b"mdat", bytes(5_000))


def _picture() -> bytes:
    context = av.CodecContext.create("png", "w")
    context.width = context.height = 16
    context.pix_fmt, context.time_base = "rgb24", Fraction(1, 25)
    frame = av.VideoFrame(16, 16, "rgb24")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


REFUSED = {
    "text": Input(lambda: b"Hello, this is no audio.\n" * 50, error="this is text, not audio"),
    "utf-16": Input(lambda: ("Grüße, this is no audio.\n" * 50).encode("utf-16"), error="this is text, not audio"),
    "web page": Input(lambda: b"\n<!DOCTYPE html><title>404</title>" * 20, error="this is a web page, not audio"),
    "playlist": Input(lambda: b"#EXTM3U\n#EXTINF:1,\nother.wav\n", error="this is a playlist, not audio"),
    "concatenation": Input(lambda: b"ffconcat version 1.0\nfile 'other.wav'\n", error="this is a playlist, not audio"),
    "mp4 without its index": Input(_without_index, error="the MP4 has no index (`moov`)"),
    "noise": Input(lambda: bytes(range(1, 256)) * 40, error="unknown format: expected wav, "),
    "video": Input(lambda: mux("matroska", [], video=1.0), error="there is no audio in the file"),
    "zeros": Input(lambda: bytes(100_000), error="unknown format: expected wav, "),
    "picture": Input(_picture, error="unknown format: expected wav, "),
    "rifx of another codec": Input(
        lambda: wav_chunks((b"fmt ", layout(4, 1, ">", tag=17)), (b"data", bytes(999)), order=">", magic=b"RIFX"),
        error="a big-endian WAV (RIFX) with this encoding is not supported",
    ),
}

INPUTS = {**FORMATS, **TIMES, **STREAMS, **WAVS, **REFUSED}


def list_of_formats() -> str:
    """Return the table of formats for the documentation."""
    rows: dict[tuple[str, bool], list[str]] = {}
    for each in FORMATS.values():
        if each.container:
            codecs = rows.setdefault((each.container, bool(each.local)), [])
            codecs += [each.codec] if each.codec not in codecs else []
    lines = ["| container | codecs | uploads and live streams | `tympan transcribe` |", "|---|---|---|---|"]
    for (container, local), codecs in rows.items():
        lines.append(f"| {container} | {', '.join(codecs)} | {'no' if local else 'yes'} | yes |")
    return "\n".join(lines)

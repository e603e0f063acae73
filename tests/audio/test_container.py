"""Containers and codecs."""

from __future__ import annotations

import asyncio
import functools
import io

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.audio_decoding import RemoteClient, cut, cuts, decoded
from support.audio_encoding import encode, voice

from tympan.audio.containers.remote import _READ_BYTES, MOST_BLOCKS
from tympan.errors import AudioError
from tympan.messages import AudioFormat, Samples

AUTO = AudioFormat("auto", 24_000, 1)
OPUS = AudioFormat("opus", 24_000, 1)
SECONDS = 1.3

# name → container, codec, rate, written live, muxer options
_KINDS: dict[str, tuple[str, str, int, bool, dict[str, str]]] = {
    "ogg opus": ("ogg", "libopus", 48_000, True, {}),
    "ogg opus, live": ("ogg", "libopus", 48_000, True, {"page_duration": "20000"}),
    "webm opus": ("webm", "libopus", 48_000, False, {}),
    "webm opus, live": ("webm", "libopus", 48_000, True, {"live": "1"}),
    "wav": ("wav", "pcm_s16le", 16_000, False, {}),
    "wav, length unknown": ("wav", "pcm_s16le", 24_000, True, {}),
    "wav 8": ("wav", "pcm_u8", 24_000, False, {}),
    "wav 24": ("wav", "pcm_s24le", 44_100, False, {}),
    "wav 32": ("wav", "pcm_s32le", 24_000, False, {}),
    "wav float": ("wav", "pcm_f32le", 48_000, False, {}),
    "wav double": ("wav", "pcm_f64le", 24_000, False, {}),
    "wav mulaw": ("wav", "pcm_mulaw", 8_000, False, {}),
    "wav alaw": ("wav", "pcm_alaw", 8_000, False, {}),
    "wav adpcm": ("wav", "adpcm_ima_wav", 24_000, False, {}),
    "mp3": ("mp3", "libmp3lame", 44_100, False, {}),
    "mp3, no index": ("mp3", "libmp3lame", 24_000, True, {"write_xing": "0", "id3v2_version": "0"}),
    "flac": ("flac", "flac", 24_000, False, {}),
    "m4a, index last": ("mp4", "aac", 44_100, False, {}),
    "m4a, fragments": (
        "mp4",
        "aac",
        48_000,
        True,
        {"movflags": "frag_keyframe+empty_moov", "frag_duration": "200000"},
    ),
    "aac": ("adts", "aac", 24_000, True, {}),
    "aiff": ("aiff", "pcm_s16be", 24_000, False, {}),
    "au": ("au", "pcm_s16be", 24_000, True, {}),
    "caf": ("caf", "pcm_s16be", 24_000, False, {}),
    "mkv": ("matroska", "pcm_s16le", 24_000, False, {}),
}


@functools.cache
def encoded(kind: str, channels: int = 1) -> bytes:
    container, codec, rate, live, options = _KINDS[kind]
    return encode(voice(SECONDS, rate, channels), rate, container, codec, live=live, options=options)


@functools.cache
def expected(kind: str) -> Samples:
    return decoded([encoded(kind)], AUTO)


@pytest.mark.parametrize("kind", _KINDS)
def test_decode(kind: str) -> None:
    samples = expected(kind)[:, 0]
    original = voice(SECONDS, 24_000)[:, 0]
    # Codecs without a length in the stream pad it with part of a frame before and after.
    assert len(original) - 30 <= len(samples) <= len(original) + 5_000
    spectrum = np.abs(np.fft.rfft(samples[: len(original)] * np.hanning(len(samples[: len(original)]))))
    reference = np.abs(np.fft.rfft(original * np.hanning(len(original))))[: len(spectrum)]
    assert np.corrcoef(spectrum[: len(reference)], reference)[0, 1] > 0.95


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(_KINDS)), cuts())
@example("mp3, no index", list(range(0, 3_000, 7)))
@example("webm opus, live", list(range(3_000)))
@example("ogg opus", list(range(3_000)))
def test_any_split(kind: str, places: list[int]) -> None:
    np.testing.assert_array_equal(decoded(cut(encoded(kind), places), AUTO), expected(kind))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["ogg opus, live", "webm opus, live", "mp3", "flac"]), st.data(), cuts())
def test_damaged_stream_any_split(kind: str, data: st.DataObject, places: list[int]) -> None:
    damaged = bytearray(encoded(kind))
    where = data.draw(st.integers(len(damaged) // 3, len(damaged) - 1))
    garbage = data.draw(st.binary(max_size=300))
    damaged[where : where + len(garbage)] = garbage
    assert _outcome([bytes(damaged)]) == _outcome(cut(bytes(damaged), places))


def _outcome(pieces: list[bytes]) -> bytes | str:
    try:
        return decoded(pieces, AUTO).tobytes()
    except AudioError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["ogg opus, live", "webm opus, live"])
async def test_live_opus(kind: str) -> None:
    """Only the resampler's window, under 50 ms, may be missing after any packet; the first needs no probing."""
    data = encoded(kind)
    with av.open(io.BytesIO(data)) as container:
        starts = [packet.pos for packet in container.demux(audio=0) if packet.size]
    fed = samples = 0
    async with RemoteClient(OPUS) as client:
        for packets, start in enumerate(starts[1:], 1):
            # The next packet's position is before or behind its header: either way after this packet.
            samples += sum(map(len, await client.decode(data[fed:start])))
            fed = start
            assert samples >= packets * 480 - 50 * 24


@pytest.mark.parametrize("kind", ["aac", "mp3, no index"])
async def test_live_codecs_are_not_probed(kind: str) -> None:
    async with RemoteClient(AUTO) as client:
        assert sum(map(len, await client.decode(encoded(kind)[:4_000])))


async def test_live_wav() -> None:
    data = encoded("wav, length unknown")
    header = data.index(b"data") + 8
    async with RemoteClient(AUTO) as client:
        assert sum(map(len, await client.decode(data[: header + 101]))) == 50
        assert sum(map(len, await client.decode(data[header + 101 : header + 104]))) == 2


def test_wav_data_chunk() -> None:
    data = encoded("wav")
    np.testing.assert_array_equal(decoded([data + b"LIST\x04\0\0\0tail"], AUTO), expected("wav"))


def test_stereo() -> None:
    data = encoded("wav 32", 2)
    stereo = decoded([data], AudioFormat("auto", 24_000, 2))
    np.testing.assert_allclose(stereo, voice(SECONDS, 24_000, 2), atol=1e-6)
    np.testing.assert_allclose(decoded([data], AUTO)[:, 0], stereo.mean(axis=1), atol=1e-6)


def test_surround() -> None:
    sound = np.zeros((2_400, 6), np.float32)
    sound[:, 3] = 1.0
    assert not decoded([encode(sound, 24_000, "wav", "pcm_s16le")], AUTO).any()
    assert decoded([encode(np.ones_like(sound), 24_000, "flac", "flac")], AUTO).max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["wav", "ogg opus", "flac"])
def test_mono_as_two_channels(kind: str) -> None:
    with pytest.raises(AudioError, match="the audio has one channel; use channels=1"):
        decoded([encoded(kind)], AudioFormat("auto", 24_000, 2))


def test_chained_ogg() -> None:
    links = [encoded("ogg opus"), encoded("ogg opus", 2), encoded("ogg opus, live")]
    format = AudioFormat("opus", 24_000, 1)
    # At the codec's own rate no resampler blurs the joints.
    parts = [decoded([link], format, 48_000) for link in links]
    chain = decoded([b"".join(links)], format, 48_000)
    np.testing.assert_array_equal(chain, np.concatenate(parts))
    np.testing.assert_array_equal(decoded(cut(b"".join(links), range(0, 1 << 20, 97)), format, 48_000), chain)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(range(256)) * 40, "requires an Ogg/Opus or WebM/Opus stream"),
        (b"OggS" + bytes(range(256)) * 400, "could not be decoded"),
        (encoded("mp3"), "encoding=opus requires an Ogg/Opus or WebM/Opus stream"),
        (encoded("mkv"), "requires Opus, but the codec is pcm_s16le; use encoding=auto"),
        (encoded("ogg opus")[:60], "it ends within its header"),
    ],
    ids=["random", "ogg and garbage", "mp3", "other codec", "header cut"],
)
def test_not_opus(data: bytes, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        decoded([data], OPUS)


@pytest.mark.parametrize(
    "data", [b"#EXTM3U\nfile:///etc/passwd\n" * 9, b"ffconcat version 1.0\nfile 'x'\n", bytes(5_000), b"RIFF"]
)
def test_unknown_container(data: bytes) -> None:
    with pytest.raises(AudioError):
        decoded([data], AUTO)


_STARTS = [
    b"",
    b"OggS",
    b"\x1aE\xdf\xa3",
    b"RIFF\0\0\0\0WAVE",
    b"fLaC",
    b"ID3\4\0\0\0\0\0\0",
    b"\xff\xfb",
    b"\0\0\0\x08ftyp",
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(_STARTS), st.binary(max_size=3_000), cuts())
def test_random_bytes(start: bytes, rest: bytes, places: list[int]) -> None:
    assert _outcome([start + rest]) == _outcome(cut(start + rest, places))


def test_empty_stream() -> None:
    assert not len(decoded([], OPUS))
    assert not len(decoded([b"", b""], OPUS))


def test_video_without_audio() -> None:
    output = io.BytesIO()
    with av.open(output, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="there is no audio in the file"):
        decoded([output.getvalue()], AUTO)


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("ogg", "libopus")])
async def test_decoding_is_lazy(container: str, codec: str) -> None:
    data = encode(np.zeros((48_000 * 120, 1), np.float32), 48_000, container, codec)
    assert len(data) < 100_000
    async with RemoteClient(AUTO) as client:
        blocks = await client.decode(data, 20)
        await asyncio.sleep(0.3)  # time for a decoder that does not wait to run far ahead
        assert len(blocks) == 20
        assert max(map(len, blocks)) <= 24_000
        in_one_read = _READ_BYTES // min(block.nbytes for block in blocks)
        assert len(client.decoder._blocks) < MOST_BLOCKS + in_one_read < 120 / 0.08 / 2, "of 120 s"


def test_invalid_rate() -> None:
    data = bytearray(encoded("wav"))
    data[24:28] = (1).to_bytes(4, "little")
    with pytest.raises(AudioError, match="invalid sample rate of the audio: 1 Hz"):
        decoded([bytes(data)], AUTO)


def test_endless_header() -> None:
    """A million empty chunks, or boxes, must not be walked one by one."""
    assert _outcome([b"RIFF\0\0\0\0WAVE" + bytes(8 << 20)]).__class__ is str
    assert _outcome([b"\0\0\0\x08free" * (1 << 20)]).__class__ is str


def test_libav_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(encoded("ogg opus, live"))
    damaged[3_000:3_500] = bytes(500)
    decoded([bytes(damaged)], AUTO)
    with pytest.raises(AudioError):
        decoded([b"OggS" + bytes(range(256)) * 400], OPUS)
    assert capfd.readouterr() == ("", "")

"""Opens containers with libav, chooses a track, and decodes it to samples."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Final, cast

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from tympan.audio.containers.timeline import Timeline, timeline_for
from tympan.audio.mixing import Mixer
from tympan.audio.pcm import finite
from tympan.audio.source import Details
from tympan.errors import AudioError
from tympan.messages import Samples

_UPLOAD_CODECS: Final = (
    "opus vorbis flac alac mp1 mp1float mp2 mp2float mp3 mp3float aac aac_latm ac3 eac3 dca amrnb amrwb speex "
    "libspeex wavpack wmav1 wmav2 wmapro wmavoice wmalossless g722 g726 g726le g723_1 gsm gsm_ms nellymoser ilbc "
    "adpcm_ms adpcm_ima_wav adpcm_ima_qt adpcm_swf adpcm_yamaha s302m pcm_s8 pcm_u8 pcm_s16le pcm_s16be pcm_s24le "
    "pcm_s24be pcm_s32le pcm_s32be pcm_f32le pcm_f32be pcm_f64le pcm_f64be pcm_mulaw pcm_alaw pcm_dvd pcm_bluray"
)
UPLOAD_CODECS: Final = tuple(_UPLOAD_CODECS.split())
"""libav's names of the decoders that run on the bytes of clients."""

_BASE_OPTIONS: Final = {
    # Use the headers and the first packet only; by default libav collects a second of live MP3 or AAC first.
    "probesize": "32",
    "analyzeduration": "1",
    # No demuxer may open another file or URL.
    "protocol_whitelist": "none",
}
# The header does not list the tracks: the audio is found where its first packet is.
_WITHOUT_HEADER: Final = ("flv", "mpeg")
_PROBING: Final = {"probesize": str(5 << 20), "analyzeduration": "5000000"}
# These open other files or URLs, or devices, or accept all bytes; `sniff` finds those in which audio may be joined.
_REFUSED_DEMUXERS: Final = (
    "aac alsa concat dash fbdev hls image2 image2pipe imf kmsgrab lavfi mp3 oss rtp rtsp sap sdp video4linux2,v4l2 "
    "webm_dash_manifest x11grab"
)
_MOST_BAD_PACKETS = 50


@functools.cache
def local_codecs() -> tuple[str, ...]:
    """Return the names of all audio decoders, for files of the user's own machine."""
    names = []
    for name in sorted(av.codecs_available):
        with suppress(UnknownCodecError):
            if av.Codec(name, "r").type == "audio":
                names.append(name)
    return tuple(names)


def options(demuxer: str, codecs: Collection[str]) -> dict[str, str]:
    """Return the options with which a container of a known format is opened."""
    # Without the list, video decoders would run on the first packets.
    listed = {"codec_whitelist": ",".join(codecs)}
    return _BASE_OPTIONS | listed | (_PROBING if demuxer in _WITHOUT_HEADER else {})


def probing_options() -> dict[str, str]:
    """Return the options with which libav detects the format of a local file."""
    demuxers = [name for name in sorted(av.formats_available) if name not in _REFUSED_DEMUXERS.split()]
    listed = {"format_whitelist": ",".join(demuxers), "codec_whitelist": ",".join(local_codecs())}
    return {"protocol_whitelist": "none"} | listed


def decode_input(container: InputContainer, stream: av.AudioStream, mixer: Mixer) -> Iterator[Samples]:
    """Yield an audio track as samples `[n, channels]`, placed by its timestamps, without the mixer's remainder.

    Args:
        container: An open container.
        stream: One of its audio tracks.
        mixer: Converts the samples.

    Raises:
        AudioError: No packet could be decoded.
        FFmpegError: The stream cannot be decoded.
    """
    # Codecs with several threads delay frames.
    stream.codec_context.thread_count = 1
    timeline = timeline_for(container.format.name)
    if timeline is not None and container.start_time is not None:
        timeline.starts_at(container.start_time / av.time_base)
    for frame in _frames(container, stream, timeline):
        layout = [channel.name for channel in frame.layout.channels]
        samples, rate = _floats(frame), frame.sample_rate
        if timeline is not None:
            start = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None
            silence, removed = timeline.place(start, len(samples) / rate)
            yield from _silence(round(silence * rate), rate, layout, mixer)
            samples = samples[round(removed * rate) :]
        if len(samples):
            yield from mixer.push(samples, rate, layout)


def _silence(count: int, rate: int, layout: Sequence[str], mixer: Mixer) -> Iterator[Samples]:
    for start in range(0, count, rate):
        yield from mixer.push(np.zeros((min(rate, count - start), len(layout)), np.float32), rate, layout)


def choose_track(
    container: InputContainer, codecs: Collection[str], details: Details, track: int | None = None
) -> av.AudioStream:
    """Return the requested track, or the first one flagged as default, or the first one; report a choice among several.

    Args:
        container: An open container.
        codecs: Names of the codecs that may be decoded; tracks with others are chosen only if requested.
        details: Receives the report.
        track: The number of the track among the audio tracks, from 1.

    Raises:
        AudioError: There is no audio, no such track, or its codec is not supported.
    """
    tracks = container.streams.audio
    if not tracks:
        raise AudioError("there is no audio in the file")
    if track is not None and not 1 <= track <= len(tracks):
        raise AudioError(f"there is no audio track {track}: expected 1 to {len(tracks)}")
    chosen = tracks[track - 1] if track is not None else _preferred(tracks, codecs)
    name = codec_name(chosen)
    if name not in codecs:
        raise AudioError(f"the codec {name} is not supported")
    if track is None and len(tracks) > 1:
        number = tracks.index(chosen) + 1
        details.warn(
            "audio_track",
            f"the file has {len(tracks)} audio tracks, of which track {number}{_about(chosen)} is transcribed",
        )
    return chosen


def codec_name(stream: av.AudioStream) -> str:
    """Return libav's name of the decoder."""
    return stream.codec_context.name if stream.codec_context else "unknown"


def _preferred(tracks: Collection[av.AudioStream], codecs: Collection[str]) -> av.AudioStream:
    usable = [stream for stream in tracks if codec_name(stream) in codecs] or list(tracks)
    return next((stream for stream in usable if stream.disposition & Disposition.default), usable[0])


def _about(stream: av.AudioStream) -> str:
    """Return the language and title of a track, and whether it is the default, in parentheses."""
    language = stream.metadata.get("language", "")
    words = [language if language != "und" else "", stream.metadata.get("title", "")[:40]]
    words.append("flagged as default" if stream.disposition & Disposition.default else "")
    shown = ", ".join(word for word in words if word)
    return f" ({shown})" if shown else ""


def plain(error: FFmpegError) -> str:
    """Return libav's error as a few words."""
    if isinstance(error, av.error.EOFError):
        return "it ends within its header"
    return (error.strerror or "unknown error").lower()


def _frames(container: InputContainer, stream: av.AudioStream, timeline: Timeline | None) -> Iterator[av.AudioFrame]:
    """Yield decoded frames; damaged packets are skipped unless there are many in a row."""
    bad_packets, decoded = 0, False
    for packet in container.demux():
        if packet.stream.index != stream.index:
            if timeline is not None and packet.pts is not None and packet.stream.type != "audio" and not decoded:
                timeline.starts_at(float(packet.pts * packet.time_base))
            continue
        try:
            frames = cast(list[av.AudioFrame], packet.decode())
        except FFmpegError:
            bad_packets += 1
            if bad_packets > _MOST_BAD_PACKETS:
                raise
            continue
        for frame in frames:
            bad_packets, decoded = 0, True
            yield frame
    if bad_packets and not decoded:
        raise AudioError("no packet of the audio could be decoded")


def _floats(frame: av.AudioFrame) -> Samples:
    """Return a frame as float32 `[n, source channels]`, from any sample format of libav."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if values.dtype.kind == "f":
        return np.ascontiguousarray(finite(values.astype(np.float32, copy=False)))
    full_scale = 2.0 ** (8 * values.dtype.itemsize - 1)
    zero = full_scale if values.dtype.kind == "u" else 0.0
    return np.ascontiguousarray((values.astype(np.float64) - zero) / full_scale, np.float32)

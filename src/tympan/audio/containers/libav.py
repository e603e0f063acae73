"""Decodes an open libav container to samples."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from tympan.audio.mixing import Mixer
from tympan.audio.pcm import finite
from tympan.errors import AudioError
from tympan.messages import Samples

_CODECS = (
    "opus,vorbis,flac,alac,mp1float,mp2float,mp3float,mp3,aac,amrnb,amrwb,speex,libspeex,wavpack,"
    "adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,gsm,gsm_ms,pcm_s8,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,"
    "pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_mulaw,pcm_alaw"
)
OPTIONS = {
    # Use the headers and the first packet only; by default libav collects a second of live MP3 or AAC first.
    "probesize": "32",
    "analyzeduration": "1",
    # Without this, video decoders would run on the first packets.
    "codec_whitelist": _CODECS,
}
_MOST_BAD_PACKETS = 50


def decode_input(container: InputContainer, mixer: Mixer, *, only_opus: bool = False) -> Iterator[Samples]:
    """Yield the first audio stream as samples `[n, channels]`, without the mixer's remainder.

    Raises:
        AudioError: There is no audio, or its codec is not supported.
        FFmpegError: The stream cannot be decoded.
    """
    stream = audio_stream(container, only_opus=only_opus)
    for frame in _frames(container, stream):
        layout = [channel.name for channel in frame.layout.channels]
        yield from mixer.push(_floats(frame), frame.sample_rate, layout)


def audio_stream(container: InputContainer, *, only_opus: bool = False) -> av.AudioStream:
    """Return the first audio stream, set up to decode in this thread.

    Raises:
        AudioError: There is no audio, or its codec is not supported.
    """
    if not container.streams.audio:
        raise AudioError("there is no audio in the file")
    stream = container.streams.audio[0]
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    if only_opus and codec != "opus":
        raise AudioError(f"encoding=opus requires Opus, but the codec is {codec}; use encoding=auto")
    if codec not in _CODECS.split(","):
        raise AudioError(f"the codec {codec} is not supported")
    # Codecs with several threads delay frames.
    stream.codec_context.thread_count = 1
    return stream


def plain(error: FFmpegError) -> str:
    """Return libav's error as a few words."""
    if isinstance(error, av.error.EOFError):
        return "it ends within its header"
    return (error.strerror or "unknown error").lower()


def _frames(container: InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Yield decoded frames; damaged packets are skipped unless there are many in a row."""
    bad_packets, decoded = 0, False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
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

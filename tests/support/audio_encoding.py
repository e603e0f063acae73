"""Makes encoded audio for the tests, with libav."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.stream import Disposition

from tympan.messages import Samples


class _Pipe:
    """A file that cannot seek, as a browser's recorder or a live encoder writes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def voice(seconds: float, rate: int, channels: int = 1) -> Samples:
    """Something like a voice: harmonics that come and go, `[n, channels]`, different in every channel."""
    t = np.arange(round(seconds * rate)) / rate
    rows = []
    for channel in range(channels):
        pitch = 110 * (channel + 1) * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * t))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(np.sin(k * phase) / k for k in range(1, 9))
        rows.append(0.2 * tone * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t)))
    return np.stack(rows, axis=1).astype(np.float32)


def encode(
    samples: Samples,
    rate: int,
    container: str,
    codec: str,
    *,
    live: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """`samples` [n, channels] in a container; `live` writes to a pipe, without going back to fill in lengths."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    if "faststart" in (options or {}).get("movflags", ""):
        return _index_first(encode(samples, rate, container, codec))
    target = _Pipe() if live else io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        if codec.startswith("wma"):
            stream.bit_rate = 64_000  # it refuses the default
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format="flt", layout=layout)
        frame.sample_rate = rate
        convert = av.AudioResampler(
            format=stream.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        for piece in [*convert.resample(frame), *convert.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return bytes(target.data) if isinstance(target, _Pipe) else target.getvalue()


def _index_first(data: bytes) -> bytes:
    """Remux an MP4 with its index first, which libav does in a second pass over a named file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        with (
            av.open(io.BytesIO(data)) as source,
            av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as output,
        ):
            streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    output.mux(packet)
        return path.read_bytes()


@dataclass(frozen=True)
class Part:
    """Samples `[n, channels]` that begin at `start` seconds."""

    start: float
    samples: Samples


@dataclass(frozen=True)
class Track:
    """An audio track of parts, between which nothing is written."""

    codec: str
    rate: int
    parts: Sequence[Part]
    default: bool = False


def mux(container: str, tracks: Sequence[Track], *, video: float = 0.0, options: dict[str, str] | None = None) -> bytes:
    """Return a file of audio tracks with timestamps, and of a black video of `video` seconds from 0 on."""
    if "faststart" in (options or {}).get("movflags", ""):
        return _index_first(mux(container, tracks, video=video))
    target = io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as output:
        picture = _video(output, container) if video else None
        streams = []
        for track in tracks:
            layout = {1: "mono", 2: "stereo"}[track.parts[0].samples.shape[1]]
            stream = output.add_stream(track.codec, rate=track.rate, layout=layout)
            stream.disposition = Disposition.default if track.default else Disposition(0)
            streams.append(stream)
        packets = []
        if picture is not None:
            for number in range(round(video * 10)):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                packets += picture.encode(frame)
            packets += picture.encode(None)
        for stream, track in zip(streams, tracks, strict=True):
            for frame in _audio_frames(stream, track):
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return target.getvalue()


def _video(output: OutputContainer, container: str) -> av.VideoStream:
    codec = {"flv": "flv1", "mpegts": "mpeg2video", "vob": "mpeg2video"}.get(container, "mpeg4")
    stream = output.add_stream("flv" if codec == "flv1" else codec, rate=25 if codec == "mpeg2video" else 10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 25 if codec == "mpeg2video" else 10)
    return stream


def _audio_frames(stream: av.AudioStream, track: Track) -> Iterator[av.AudioFrame]:
    context = stream.codec_context
    context.time_base = Fraction(1, track.rate)
    context.open()
    size = context.frame_size or 1024
    for part in track.parts:
        first = round(part.start * track.rate)
        for start in range(0, len(part.samples), size):
            block = part.samples[start : start + size]
            if context.frame_size:
                block = np.pad(block, ((0, size - len(block)), (0, 0)))
            frame = av.AudioFrame.from_ndarray(
                _in_format(block, context.format), context.format.name, context.layout.name
            )
            frame.sample_rate, frame.pts, frame.time_base = track.rate, first + start, Fraction(1, track.rate)
            yield frame


def _in_format(samples: Samples, format: av.AudioFormat) -> npt.NDArray[np.number]:
    kind = format.name.removesuffix("p")
    values = samples if kind == "flt" else (samples * (2 ** (8 * format.bytes - 1) - 1)).astype(f"i{format.bytes}")
    return np.ascontiguousarray(values.T if format.is_planar else values.reshape(1, -1))

"""Makes encoded audio for the tests, with libav."""

from __future__ import annotations

import io

import av
import numpy as np

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
    target = _Pipe() if live else io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
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

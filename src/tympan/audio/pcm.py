"""Raw samples: integers, floats, µ-law and A-law."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from tympan.audio.g711 import alaw_table, mulaw_table
from tympan.audio.resample import Resampler
from tympan.messages import AudioFormat, Pcm, Samples

SAMPLE_BYTES = {
    "u8": 1,
    "s16le": 2,
    "s24le": 3,
    "s32le": 4,
    "f32le": 4,
    "f64le": 8,
    "mulaw": 1,
    "alaw": 1,
}
# Audio is in [-1, 1]. Values near the limit of float32, from wrong bytes, would overflow in the resampler's sums and
# reach the model as infinities.
_LARGEST = 1e6
_S16LE = np.dtype("<i2")  # parsing the name for each message would double the time


class PcmDecoder:
    """Decodes `s16le`, `f32le`, `mulaw` and `alaw`; the contract is `tympan.audio.decoder.Decoder`.

    16-bit samples that are neither resampled nor mixed are returned as int16, without a copy. NaN becomes 0. Values
    outside [-1, 1] are kept up to a million.
    """

    def __init__(self, format: AudioFormat, sample_rate: int) -> None:
        self._mixed = format.mixed and format.channels > 1
        stays = format.encoding == "s16le" and format.sample_rate == sample_rate and not self._mixed
        self._read = READERS[format.encoding]
        self._channels = format.channels
        self._frame_bytes = SAMPLE_BYTES[format.encoding] * format.channels
        self._block_bytes = self._frame_bytes * format.sample_rate
        self._resampler = None if stays else Resampler(format.sample_rate, sample_rate, format.streams)
        self._waiting = bytearray()

    def decode(self, data: bytes) -> Iterator[Pcm]:
        if not self._waiting and 0 < len(data) <= self._block_bytes and not len(data) % self._frame_bytes:
            samples = self._samples(data)  # the usual message: whole frames
            return iter((samples,) if len(samples) else ())
        self._waiting += data
        return self._whole_frames()

    def flush(self) -> Iterator[Pcm]:
        yield from self._whole_frames()
        if self._resampler is not None and len(samples := self._resampler.flush()):
            yield samples

    def finish(self) -> Iterator[Pcm]:
        yield from self._whole_frames()
        self._waiting.clear()
        if self._resampler is not None and len(samples := self._resampler.finish()):
            yield samples

    def close(self) -> None:
        self._waiting.clear()

    def _whole_frames(self) -> Iterator[Pcm]:
        while len(self._waiting) >= self._frame_bytes:
            whole = len(self._waiting) - len(self._waiting) % self._frame_bytes
            block = bytes(self._waiting[: min(whole, self._block_bytes)])
            del self._waiting[: len(block)]
            samples = self._samples(block)
            if len(samples):
                yield samples

    def _samples(self, block: bytes) -> Pcm:
        if self._resampler is None:
            return np.frombuffer(block, _S16LE).reshape(-1, self._channels)
        values = self._read(block).reshape(-1, self._channels)
        return self._resampler.push(mean_of(values) if self._mixed else values)


def mean_of(samples: Samples) -> Samples:
    """Two channels `[n, 2]` as one, `[n, 1]`."""
    return (samples[:, :1] + samples[:, 1:]) * np.float32(0.5)


def samples_from_bytes(data: bytes, encoding: str) -> Samples:
    """Return float32 `[n]` from whole samples of an encoding in `SAMPLE_BYTES`."""
    return READERS[encoding](data)


def finite(values: npt.NDArray[np.floating]) -> Samples:
    """Return float32 of the same shape, with 0 for NaN and infinity, clipped to a million."""
    # The usual case in one pass: a comparison with NaN is false.
    if np.abs(values).max(initial=0) <= _LARGEST:
        return values.astype(np.float32)
    numbers = np.where(np.isfinite(values), values, 0)
    sound: Samples = np.clip(numbers, -_LARGEST, _LARGEST).astype(np.float32)
    return sound


def _from_integers(values: npt.NDArray[np.integer], full_scale: int) -> Samples:
    # Powers of two: the products are exact for up to 24 bits.
    samples: Samples = values.astype(np.float32)
    samples *= np.float32(1 / full_scale)
    return samples


def _widened(data: bytes) -> npt.NDArray[np.int32]:
    """Return 24-bit samples as the upper bytes of 32-bit ones."""
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0]


READERS: Mapping[str, Callable[[bytes], Samples]] = {
    "u8": lambda data: _from_integers(np.frombuffer(data, np.uint8).astype(np.int16) - 128, 1 << 7),
    "s16le": lambda data: _from_integers(np.frombuffer(data, "<i2"), 1 << 15),
    "s24le": lambda data: _from_integers(_widened(data), 1 << 31),
    "s32le": lambda data: _from_integers(np.frombuffer(data, "<i4"), 1 << 31),
    "f32le": lambda data: finite(np.frombuffer(data, "<f4")),
    "f64le": lambda data: finite(np.frombuffer(data, "<f8")),
    "mulaw": lambda data: mulaw_table()[np.frombuffer(data, np.uint8)],
    "alaw": lambda data: alaw_table()[np.frombuffer(data, np.uint8)],
}

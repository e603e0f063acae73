"""Bytes in, samples out: the one face of every format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tympan.audio.containers.decoder import ContainerDecoder
from tympan.audio.format import CONTAINER_ENCODINGS
from tympan.audio.pcm import PcmDecoder
from tympan.messages import AudioFormat, Pcm


class Decoder(Protocol):
    """Decodes one stream: samples `[n, channels]` at the target rate, not to be changed, a second per block or so.

    Synchronous and deterministic: the samples depend on the bytes, never on how they were split. Iterators are lazy
    (a container decodes at most 16 blocks ahead), so a small file that holds hours of audio costs no memory. What was
    not pulled comes with the next call. After an `AudioError` only `close` is left. Not for two threads at once.
    """

    def decode(self, data: bytes) -> Iterator[Pcm]:
        """Everything decodable from the bytes so far. Raises `AudioError`."""
        ...

    def flush(self) -> Iterator[Pcm]:
        """What the resampler of raw samples holds back, as if silence followed; it does not come again. Containers have
        nothing to give but in their own time: a flush leaves at most a packet and 40 ms of them unheard.
        """
        ...

    def finish(self) -> Iterator[Pcm]:
        """The tail: remainders of codec and resampler. A truncated last sample is dropped. Raises `AudioError`."""
        ...

    def close(self) -> None:
        """Frees what the decoder holds, threads too. May be called at any time and more than once."""
        ...


def open_decoder(format: AudioFormat, sample_rate: int = 24_000) -> Decoder:
    """A decoder of `format` to `sample_rate` samples per second, of `format.streams` channels."""
    if format.encoding in CONTAINER_ENCODINGS:
        return ContainerDecoder(format, sample_rate)
    return PcmDecoder(format, sample_rate)

"""The decoder interface: bytes of any format to samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from tympan.audio.containers.remote import RemoteDecoder
from tympan.audio.format import CONTAINER_ENCODINGS
from tympan.audio.pcm import PcmDecoder
from tympan.messages import AudioFormat, Pcm, Warning


class Decoder(Protocol):
    """Decodes one stream to samples `[n, channels]` at the target rate, in blocks of about a second.

    The samples depend on the bytes, not on how they are split; the caller must not change them. Iterators are lazy (a
    container decodes at most 16 blocks ahead), so a small file with hours of audio needs little memory; the rest
    follows with the next call. An iterator yields `None` where the worker process of a container must be waited for.
    After an `AudioError` only `close` may be called.
    """

    def decode(self, data: bytes) -> Iterator[Pcm | None]:
        """Yield the samples of the bytes so far.

        Raises:
            AudioError: The bytes cannot be decoded.
        """

    def flush(self) -> Iterator[Pcm | None]:
        """Yield the samples that the resampler of raw audio holds back, as if silence followed.

        For a container it yields nothing: up to a packet and 40 ms remain pending.
        """

    def finish(self) -> Iterator[Pcm | None]:
        """Yield the remaining samples of codec and resampler; an incomplete last sample is dropped.

        Raises:
            AudioError: The bytes cannot be decoded.
        """

    def close(self) -> None:
        """Release all resources. May be called at any time and more than once."""


def open_decoder(
    format: AudioFormat,
    sample_rate: int = 24_000,
    on_ready: Callable[[], None] = lambda: None,
    on_warning: Callable[[Warning], None] = lambda warning: None,
    *,
    live: bool = True,
) -> Decoder:
    """Return a decoder of `format` to `format.streams` channels at `sample_rate` Hz.

    Args:
        format: The declared format.
        sample_rate: Of the samples.
        on_ready: Called on the event loop when an iterator that has yielded `None` can be continued.
        on_warning: Called on the event loop with each warning of the decoder.
        live: Whether the stream is live; a container in a file may have its index at its end.
    """
    if format.encoding in CONTAINER_ENCODINGS:
        return RemoteDecoder(format, sample_rate, on_ready, on_warning, live=live)
    return PcmDecoder(format, sample_rate)

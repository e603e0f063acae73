"""Decodes containers and codecs with libav (PyAV) while their bytes are received."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import IO

import av
from av.error import FFmpegError

from tympan.audio.containers.libav import OPTIONS, decode_input, plain
from tympan.audio.containers.ogg import OggLink
from tympan.audio.containers.pull_thread import More, PullThread
from tympan.audio.containers.sniff import KNOWN, Container, sniff
from tympan.audio.containers.wav import read_header, wav_samples
from tympan.audio.mixing import Mixer
from tympan.audio.source import BlockSource, ByteSource
from tympan.errors import AudioError
from tympan.messages import AudioFormat, Samples

# These demuxers read exactly what they need. The output of the others depends on the size of reads.
_EXACT_DEMUXERS = ("matroska", "mov")
_BLOCK_BYTES = 1024

_File = IO[bytes] | ByteSource | BlockSource | OggLink


class ContainerDecoder:
    """Decodes `opus` and `auto`; the contract is `tympan.audio.decoder.Decoder`.

    libav reads from a blocking file, so each decoder has a thread, which runs only while an iterator is advanced.
    """

    def __init__(self, format: AudioFormat, sample_rate: int) -> None:
        self._coroutine = PullThread(partial(_decode, format, sample_rate), name="tympan-decoder")

    def decode(self, data: bytes) -> Iterator[Samples]:
        self._coroutine.feed(data)
        return self._coroutine.results()

    def flush(self) -> Iterator[Samples]:
        return iter(())

    def finish(self) -> Iterator[Samples]:
        self._coroutine.end()
        return self._coroutine.results()

    def close(self) -> None:
        self._coroutine.close()


def _decode(format: AudioFormat, sample_rate: int, more: More) -> Generator[Samples]:
    """Yield the samples of a stream; runs in the thread."""
    source = ByteSource(more)
    if not source.peek(1):
        return
    only_opus = format.encoding == "opus"
    kind = _container(source, only_opus=only_opus)
    mixer = Mixer(sample_rate, format.streams, or_fewer=format.or_fewer)
    header = read_header(source) if kind.name == "wav" else None
    if header is not None:
        yield from wav_samples(source, header, mixer)
    else:
        yield from _decode_libav(source, kind, mixer, only_opus=only_opus)
    yield from mixer.finish()


def _decode_libav(source: ByteSource, kind: Container, mixer: Mixer, *, only_opus: bool) -> Iterator[Samples]:
    try:
        for file in _files(source, kind):
            with _closed(file), av.open(file, "r", format=kind.name, options=OPTIONS) as container:
                yield from decode_input(container, mixer, only_opus=only_opus)
    except FFmpegError as error:
        raise AudioError(f"the {kind.name} stream could not be decoded: {plain(error)}") from error


def _container(source: ByteSource, *, only_opus: bool) -> Container:
    kind = sniff(source)
    if only_opus and (kind is None or kind.name not in ("ogg", "matroska")):
        raise AudioError("encoding=opus requires an Ogg/Opus or WebM/Opus stream")
    if kind is None:
        raise AudioError(f"unknown format: expected {KNOWN}; the encoding of raw samples must be declared")
    return kind


def _closed(file: _File) -> AbstractContextManager[object]:
    """Return a context that closes the spooled copy, and nothing else."""
    return nullcontext() if isinstance(file, ByteSource | BlockSource | OggLink) else file


def _files(source: ByteSource, kind: Container) -> Iterator[_File]:
    """Yield the input as files for libav: several for a chained Ogg, one for all others."""
    if kind.seeks:
        yield source.spool()
    elif kind.name == "ogg":
        while source.peek(1):
            yield OggLink(source)
    elif kind.name in _EXACT_DEMUXERS:
        yield source
    else:
        yield BlockSource(source, _BLOCK_BYTES)

"""Decodes containers and codecs with libav (PyAV) while their bytes are received."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import IO

import av
from av.error import FFmpegError

from tympan.audio.containers.inspect import check_header, check_index_at_end
from tympan.audio.containers.libav import OPTIONS, decode_input, plain
from tympan.audio.containers.ogg import OggLink
from tympan.audio.containers.sniff import KNOWN, Container, sniff
from tympan.audio.containers.wav import read_header, wav_samples
from tympan.audio.mixing import Mixer
from tympan.audio.source import BlockSource, ByteSource, More
from tympan.errors import AudioError
from tympan.messages import AudioFormat, Samples

# These demuxers read exactly what they need. The output of the others depends on the size of reads.
_EXACT_DEMUXERS = ("matroska", "mov")
_BLOCK_BYTES = 1024

_File = IO[bytes] | ByteSource | BlockSource | OggLink


def decode_container(format: AudioFormat, sample_rate: int, more: More) -> Generator[Samples]:
    """Yield the samples of a stream, `[n, channels]` float32; `more` waits for its next bytes, empty at the end.

    Raises:
        AudioError: The stream cannot be decoded.
    """
    source = ByteSource(more)
    if not source.peek(1):
        return
    only_opus = format.encoding == "opus"
    kind = _container(source, only_opus=only_opus)
    mixer = Mixer(sample_rate, format.streams, or_fewer=format.or_fewer)
    check_header(source, kind.name)
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
        file = source.spool()
        try:
            check_index_at_end(file)
        except BaseException:
            file.close()
            raise
        yield file
    elif kind.name == "ogg":
        while source.peek(1):
            yield OggLink(source)
    elif kind.name in _EXACT_DEMUXERS:
        yield source
    else:
        yield BlockSource(source, _BLOCK_BYTES)

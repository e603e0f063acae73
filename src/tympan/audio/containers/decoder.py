"""Decodes containers and codecs with libav (PyAV) while their bytes are received."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, Any

import av
from av.error import FFmpegError

from tympan.audio.containers.inspect import check_header, check_index_at_end
from tympan.audio.containers.libav import (
    UPLOAD_CODECS,
    choose_track,
    codec_name,
    decode_input,
    local_codecs,
    options,
    plain,
    probing_options,
)
from tympan.audio.containers.ogg import OggLink
from tympan.audio.containers.sniff import Container, describe_unknown, sniff
from tympan.audio.containers.wav import CodedWav, wav_samples
from tympan.audio.containers.wav_header import data_precedes_format, read_header, with_format_first
from tympan.audio.mixing import Mixer
from tympan.audio.source import BlockSource, ByteSource, Details, More
from tympan.errors import AudioError
from tympan.messages import AudioFormat, Samples

# These demuxers read exactly what they need. The output of the others depends on the size of reads.
_EXACT_DEMUXERS = ("matroska", "mov")
_BLOCK_BYTES = 1024

_File = IO[bytes] | ByteSource | BlockSource | OggLink | CodedWav

_OPUS_CONTAINERS = (b"OggS", b"\x1aE\xdf\xa3")  # the first bytes


def decode_container(
    format: AudioFormat, sample_rate: int, more: More, details: Details | None = None
) -> Generator[Samples]:
    """Yield the samples of a stream, `[n, channels]` float32.

    Args:
        format: The declared format, `auto` or `opus`.
        sample_rate: Of the samples, in Hz.
        more: Waits for the next bytes; empty bytes mean the end.
        details: Receives warnings.

    Raises:
        AudioError: The stream cannot be decoded.
    """
    decoder = ContainerDecoder(format, sample_rate, details or Details())
    yield from decoder.decode(ByteSource(more))


class ContainerDecoder:
    """Decodes one file or stream: the same way for clients of a server and for local files.

    Args:
        format: The declared format, `auto` or `opus`.
        sample_rate: Of the samples, in Hz.
        details: Receives warnings and the duration.
        track: The number of the audio track, from 1; None selects the default track.
        local: Whether the file is the user's own. Then libav's other formats and codecs are accepted as well.
    """

    def __init__(
        self, format: AudioFormat, sample_rate: int, details: Details, *, track: int | None = None, local: bool = False
    ) -> None:
        self._only_opus = format.encoding == "opus"
        self._mixer = Mixer(sample_rate, format.streams, or_fewer=format.or_fewer, details=details)
        self._details = details
        self._track = track
        self._local = local
        self._unknown = ""  # why `sniff` does not recognize the input

    @property
    def _codecs(self) -> Collection[str]:
        return local_codecs() if self._local else UPLOAD_CODECS

    def decode(self, source: ByteSource) -> Generator[Samples]:
        """Yield the samples of `source`.

        Raises:
            AudioError: It cannot be decoded.
        """
        if not source.peek(1):
            return
        kind = self._container(source)
        if kind is None:
            yield from self._probed(source)
        elif kind.name == "wav":
            yield from self._wav(source)
        else:
            yield from self._known(source, kind)
        yield from self._mixer.finish()

    def _container(self, source: ByteSource) -> Container | None:
        if self._only_opus and source.peek(4) not in _OPUS_CONTAINERS:
            raise AudioError("encoding=opus requires an Ogg/Opus or WebM/Opus stream")
        kind = sniff(source)
        if kind is None:
            self._unknown, certain = describe_unknown(source.peek(1024))
            if certain or not self._local:
                raise AudioError(self._unknown)
            return None
        check_header(source, kind)
        return kind

    def _wav(self, source: ByteSource) -> Iterator[Samples]:
        if data_precedes_format(source):
            with source.spool() as file:
                yield from self._wav_in_order(with_format_first(file))
        else:
            yield from self._wav_in_order(source)

    def _wav_in_order(self, source: ByteSource) -> Iterator[Samples]:
        if self._track not in (None, 1):
            raise AudioError(f"there is no audio track {self._track}: a WAV has one")
        header = read_header(source)
        if header is not None:
            yield from wav_samples(source, header, self._mixer, self._details)
        elif source.peek(4) == b"RIFX":
            raise AudioError("a big-endian WAV (RIFX) with this encoding is not supported")
        else:
            coded = CodedWav(source, self._details)
            yield from self._libav(coded, "wav", options("wav", self._codecs) | {"ignore_length": "1"})

    def _known(self, source: ByteSource, kind: Container) -> Iterator[Samples]:
        for file in _files(source, kind):
            with file as opened:
                yield from self._libav(opened, kind.name, options(kind.name, self._codecs))

    def _probed(self, source: ByteSource) -> Iterator[Samples]:
        """Decode a local file in a format that only libav recognizes."""
        with source.spool() as file:
            yield from self._libav(file, None, probing_options())

    def _libav(self, file: _File, name: str | None, settings: dict[str, str]) -> Iterator[Samples]:
        try:
            with av.open(file, "r", format=name, options=settings, metadata_errors="replace") as container:
                if name is None and not container.streams.audio:
                    raise AudioError(self._unknown)
                stream = choose_track(container, self._codecs, self._details, self._track)
                if self._only_opus and codec_name(stream) != "opus":
                    raise AudioError(
                        f"encoding=opus requires Opus, but the codec is {codec_name(stream)}; use encoding=auto"
                    )
                if container.duration is not None:
                    self._details.duration_seconds = container.duration / av.time_base
                yield from decode_input(container, stream, self._mixer)
        except FFmpegError as error:
            if name is None:
                raise AudioError(self._unknown) from error
            raise AudioError(f"the {name} stream could not be decoded: {plain(error)}") from error


def _files(source: ByteSource, kind: Container) -> Iterator[AbstractContextManager[_File]]:
    """Yield the input as files for libav: several for a chained Ogg, one for all others."""
    if kind.seeks:
        yield _seekable(source, kind)
    elif kind.name == "ogg":
        while source.peek(1):
            yield nullcontext(OggLink(source))
    elif kind.name in _EXACT_DEMUXERS:
        yield nullcontext(source)
    else:
        yield nullcontext(BlockSource(source, _BLOCK_BYTES))


@contextmanager
def _seekable(source: ByteSource, kind: Container) -> Generator[Any]:
    with source.spool() as file:
        if kind.name == "mov":
            check_index_at_end(file)
        yield file

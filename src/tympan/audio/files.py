"""Decodes local files, pipes and downloads to mono samples."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast
from urllib.error import HTTPError, URLError

import numpy as np

from tympan.audio.containers.decoder import ContainerDecoder
from tympan.audio.source import HAS_SELECT, Details, FileSource, Pipe, open_path
from tympan.errors import AudioError
from tympan.messages import AudioFormat, Samples, Warning

_URL_SCHEMES = ("http://", "https://")
_SERVER_SECONDS = 30.0  # without data from a web server
_MONO = AudioFormat("auto")


def is_url(name: str | Path) -> bool:
    """Return whether an input is read from a web server."""
    return isinstance(name, str) and name.lower().startswith(_URL_SCHEMES)


class AudioInput:
    """An input of `transcribe`, which is opened once: a path, a pipe, `-` for standard input, or an http(s) URL.

    Args:
        name: The path or URL.
        track: The number of the audio track, from 1; None selects the default track.
        report: Called with warnings, in the thread that decodes.

    Use it in a `with` statement.
    """

    def __init__(
        self, name: str | Path, *, track: int | None = None, report: Callable[[Warning], None] = lambda warning: None
    ) -> None:
        self.name = str(name)
        self._details = Details(report)
        self._track = track
        self._input = name
        self._file: IO[bytes] | None = None

    @property
    def duration_seconds(self) -> float | None:
        """The declared duration, once the header has been decoded; None if it is unknown."""
        return self._details.duration_seconds

    def open(self) -> Self:
        """Open the input, which may wait for a server or for the other end of a pipe; return this object.

        Raises:
            AudioError: It cannot be opened. The message contains its name.
        """
        try:
            self._file = self._open()
        except (OSError, HTTPException, ValueError) as error:
            raise AudioError(f"{self.name}: cannot be read: {_reason(error)}") from error
        return self

    def __enter__(self) -> Self:
        return self if self._file is not None else self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def blocks(self, sample_rate: int) -> Iterator[Samples]:
        """Yield mono float32 `[n]` at `sample_rate` Hz, in blocks of about one second that are decoded on demand.

        Raises:
            AudioError: The input cannot be decoded; the message contains its name.
        """
        assert self._file is not None, "enter the context first"
        block: list[Samples] = []
        try:
            source = FileSource(self._file)
            if not source.peek(1):
                raise AudioError("the file is empty")
            decoder = ContainerDecoder(_MONO, sample_rate, self._details, track=self._track, local=True)
            for samples in decoder.decode(source):
                block.append(samples[:, 0])
                if sum(map(len, block)) >= sample_rate:
                    yield np.concatenate(block)
                    block = []
        except AudioError as error:
            raise AudioError(f"{self.name}: {error}") from error
        except (OSError, HTTPException) as error:
            raise AudioError(f"{self.name}: cannot be read: {_reason(error)}") from error
        if block:
            yield np.concatenate(block)

    def _open(self) -> IO[bytes]:
        if is_url(self._input):
            request = urllib.request.Request(self.name, headers={"User-Agent": "tympan"})
            return cast(IO[bytes], urllib.request.urlopen(request, timeout=_SERVER_SECONDS))
        file = open_path(self.name)
        return file if file.seekable() or not HAS_SELECT else cast(IO[bytes], Pipe(file))


def decode_file(path: str | Path, sample_rate: int = 24_000) -> Iterator[Samples]:
    """Yield the default audio track of a file as mono float32 `[n]` at `sample_rate`, in blocks of about one second.

    Blocks are decoded on demand, so the file may be larger than the memory.

    Raises:
        AudioError: The file cannot be decoded; the message contains its name.
    """
    with AudioInput(path) as audio:
        yield from audio.blocks(sample_rate)


def _reason(error: Exception) -> str:
    """Return an operating system's or a web server's error as a few words."""
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.lower() or type(error).__name__

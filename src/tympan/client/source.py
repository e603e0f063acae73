"""Sources of audio: iterables and asynchronous iterables, and pipes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from tympan.audio.source import Pipe, open_path
from tympan.errors import AudioError

_READ_BYTES: Final = 1 << 14

AudioLike = npt.NDArray[np.floating] | npt.NDArray[np.int16] | bytes
"""Mono samples `[n]` at the declared rate, floats in [-1, 1] or int16, or bytes in the declared encoding, split
anywhere."""

AudioSource = Iterable[AudioLike] | AsyncIterable[AudioLike]
"""A plain iterable is advanced in a thread, so it may block."""


async def items(source: AudioSource) -> AsyncIterator[AudioLike]:
    """Yield the items of `source` without blocking the event loop."""
    if isinstance(source, AsyncIterable):
        async for audio in source:
            yield audio
        return
    iterator = iter(source)
    while True:
        item: AudioLike | None = await asyncio.to_thread(_next, iterator)
        if item is None:
            return
        yield item


def _next(iterator: Iterator[AudioLike]) -> AudioLike | None:
    return next(iterator, None)


class PipeSource:
    """Yields the bytes of a pipe or file as they arrive, from entering until its end or `stop`.

    Args:
        name: The path; `-` is standard input.
        sample_rate: The declared rate in Hz; None for the default of the encoding.

    Raises:
        AudioError: On entering: it cannot be opened.
    """

    def __init__(self, name: str, sample_rate: int | None = None) -> None:
        self.sample_rate = sample_rate
        self._name = name
        self._pipe: Pipe | None = None

    async def __aenter__(self) -> Self:
        self._pipe = await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the audio. May be called more than once."""
        if self._pipe is not None:
            self._pipe.close()

    def __iter__(self) -> Iterator[bytes]:
        assert self._pipe is not None, "use the source inside `async with`"
        while data := self._pipe.read(_READ_BYTES):
            yield data

    def _open(self) -> Pipe:
        try:
            return Pipe(open_path(self._name))
        except OSError as error:
            raise AudioError(f"{self._name}: cannot be read: {(error.strerror or str(error)).lower()}") from error

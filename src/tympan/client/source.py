"""Sources of audio: iterables and asynchronous iterables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

import numpy as np
import numpy.typing as npt

AudioLike = npt.NDArray[np.floating] | bytes
"""Mono samples `[n]` in [-1, 1] at the declared rate, or bytes in the declared encoding, split anywhere."""

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

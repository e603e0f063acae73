"""Runs decoders over bytes that are split somehow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from tympan.audio.containers.decoder import decode_container
from tympan.audio.decoder import open_decoder
from tympan.audio.format import CONTAINER_ENCODINGS
from tympan.audio.samples import as_float
from tympan.messages import AudioFormat, Pcm, Samples


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Split `data` at the given places (taken modulo its length), in order; some pieces may be empty."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def cuts() -> st.SearchStrategy[list[int]]:
    """Return places to split at: anywhere, and many in the headers."""
    anywhere = st.lists(st.integers(0, 1 << 20), max_size=12)
    header = st.lists(st.integers(0, 120), max_size=12)
    return st.builds(lambda a, b: a + b, anywhere, header)


def decoded(pieces: Iterable[bytes], format: AudioFormat, sample_rate: int = 24_000) -> Samples:
    """Return all samples as floats, `[n, channels]`, decoded in this process."""
    blocks = map(as_float, _blocks(pieces, format, sample_rate))
    return np.concatenate([np.zeros((0, format.channels), np.float32), *blocks])


def _blocks(pieces: Iterable[bytes], format: AudioFormat, sample_rate: int) -> Iterator[Pcm]:
    if format.encoding in CONTAINER_ENCODINGS:
        remaining = iter([piece for piece in pieces if piece])
        yield from decode_container(format, sample_rate, lambda: next(remaining, b""))
        return
    with closing(open_decoder(format, sample_rate)) as decoder:
        for piece in pieces:
            yield from decoder.decode(piece)
        yield from decoder.finish()


class RemoteClient:
    """`async with`: a decoder in a worker process, whose iterators are awaited."""

    def __init__(self, format: AudioFormat) -> None:
        self._ready = asyncio.Event()
        self.decoder = open_decoder(format, 24_000, self._ready.set)

    async def __aenter__(self) -> RemoteClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.decoder.close()

    async def decode(self, data: bytes, most_blocks: int | None = None) -> list[Pcm]:
        """Return the blocks of these bytes, or the first `most_blocks` of them."""
        return await self._collect(self.decoder.decode(data), most_blocks)

    async def finish(self) -> list[Pcm]:
        return await self._collect(self.decoder.finish(), None)

    async def _collect(self, blocks: Iterator[Pcm | None], most_blocks: int | None) -> list[Pcm]:
        collected: list[Pcm] = []
        async with asyncio.timeout(30):
            while most_blocks is None or len(collected) < most_blocks:
                block = next(blocks, b"")
                if isinstance(block, bytes):
                    break
                if block is None:
                    await self._ready.wait()
                    self._ready.clear()
                else:
                    collected.append(block)
        return collected

"""Runs a decoder over bytes that are cut somehow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from tympan.audio.decoder import open_decoder
from tympan.audio.samples import as_float
from tympan.messages import AudioFormat, Pcm, Samples


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at the given places (taken modulo its length), in order; some pieces may be empty."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def cuts() -> st.SearchStrategy[list[int]]:
    """Places to cut at: anywhere, and many in the headers."""
    anywhere = st.lists(st.integers(0, 1 << 20), max_size=12)
    header = st.lists(st.integers(0, 120), max_size=12)
    return st.builds(lambda a, b: a + b, anywhere, header)


def decoded(pieces: Iterable[bytes], format: AudioFormat, sample_rate: int = 24_000) -> Samples:
    """All samples as floats, `[n, channels]`."""
    blocks = map(as_float, _blocks(pieces, format, sample_rate))
    return np.concatenate([np.zeros((0, format.channels), np.float32), *blocks])


def _blocks(pieces: Iterable[bytes], format: AudioFormat, sample_rate: int) -> Iterator[Pcm]:
    with closing(open_decoder(format, sample_rate)) as decoder:
        for piece in pieces:
            yield from decoder.decode(piece)
        yield from decoder.finish()

"""Cutting samples into frames."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tympan.audio.frames import Framer
from tympan.audio.samples import as_float


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 17))
def test_any_split(sizes: list[int], frame_samples: int) -> None:
    signal = np.arange(sum(sizes), dtype=np.float32)
    framer = Framer(frame_samples)
    frames, start = [], 0
    for size in sizes:
        frames += framer.push(signal[start : start + size])
        start += size
        assert framer.pending == start % frame_samples
    rest = framer.pad()
    frames += [] if rest is None else [rest]
    assert all(frame.shape == (frame_samples,) and frame.flags.c_contiguous for frame in frames)
    joined = np.concatenate([np.zeros(0, np.float32), *frames])
    padded = np.zeros(-(-len(signal) // frame_samples) * frame_samples, np.float32)
    padded[: len(signal)] = signal
    np.testing.assert_array_equal(joined, padded)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=20), st.integers(1, 17))
def test_integers_and_floats(parts: list[tuple[int, bool]], frame_samples: int) -> None:
    mixed, plain = Framer(frame_samples), Framer(frame_samples)
    got: list[list[float]] = []
    expected: list[list[float]] = []
    start = 0
    for size, as_it_came in parts:
        samples = np.arange(start, start + size, dtype=np.int16)
        got += [as_float(frame).tolist() for frame in mixed.push(samples if as_it_came else as_float(samples))]
        expected += [frame.tolist() for frame in plain.push(as_float(samples))]
        start += size
    got += [as_float(rest).tolist() for rest in [mixed.pad()] if rest is not None]
    expected += [rest.tolist() for rest in [plain.pad()] if rest is not None]
    assert got == expected


def test_dtype() -> None:
    framer = Framer(4)
    assert [frame.dtype for frame in framer.push(np.ones(6, np.int16))] == [np.int16]
    rest = framer.pad()
    assert rest is not None
    assert rest.dtype == np.int16


def test_parts_are_copied() -> None:
    framer, buffer = Framer(4), np.ones(6, np.float32)
    (first,) = framer.push(buffer)
    buffer[:] = 7
    (second,) = framer.push(buffer[:2])
    assert first.tolist() == [1, 1, 1, 1]
    assert second.tolist() == [1, 1, 7, 7]


def test_contiguous() -> None:
    both = np.arange(8, dtype=np.float32).reshape(4, 2)
    (frame,) = Framer(4).push(both[:, 1])
    assert frame.tolist() == [1, 3, 5, 7]
    assert frame.flags.c_contiguous


def test_pad_nothing() -> None:
    framer = Framer(4)
    framer.push(np.ones(8, np.float32))
    assert framer.pad() is None
    assert framer.pending == 0


def test_take_partial() -> None:
    framer = Framer(4)
    assert framer.take_partial() is None
    assert [frame.tolist() for frame in framer.push(np.arange(1, 7, dtype=np.float32))] == [[1, 2, 3, 4]]
    shown = framer.take_partial()
    assert shown is not None
    assert shown.tolist() == [5, 6, 0, 0]
    assert framer.take_partial() is None, "nothing came since"
    assert framer.push(np.array([7], np.float32)) == []
    again = framer.take_partial()
    assert again is not None
    assert again.tolist() == [0, 0, 7, 0]
    assert [frame.tolist() for frame in framer.push(np.array([8, 9], np.float32))] == [[0, 0, 0, 8]]
    assert shown.tolist() == [5, 6, 0, 0], "it is the engine's"
    rest = framer.pad()
    assert rest is not None
    assert rest.tolist() == [9, 0, 0, 0]

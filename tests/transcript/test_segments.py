"""Words gathered up to a pause."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tympan.messages import Partial, Segment, Word
from tympan.transcript.segments import LONGEST_SECONDS, PAUSE_SECONDS, Segmenter


def test_pause_ends_a_segment() -> None:
    segmenter = Segmenter()
    assert list(segmenter.word(Word("a", 0.0, 0.2, 1.0))) == []
    assert list(segmenter.word(Word("b", 0.3, 0.5, 1.0))) == []
    assert list(segmenter.word(Word("c", 1.5, 1.7, 1.0))) == [Segment("a b", 0.0, 0.5)]
    assert list(segmenter.close()) == [Segment("c", 1.5, 1.7)]
    assert list(segmenter.close()) == []


def test_silence_ends_a_segment() -> None:
    segmenter = Segmenter(delay_seconds=0.5)
    list(segmenter.word(Word("a", 0.0, 0.2, 1.0)))
    assert list(segmenter.progress(0.2 + PAUSE_SECONDS)) == []  # a word in this pause may not have been released yet
    assert list(segmenter.progress(0.2 + PAUSE_SECONDS + 0.5)) == [Segment("a", 0.0, 0.2)]


def test_partial_keeps_the_segment_open() -> None:
    segmenter = Segmenter(delay_seconds=0.5)
    list(segmenter.word(Word("best", 0.0, 0.2, 1.0)))
    segmenter.partial(Partial("of times", 0.2))
    assert list(segmenter.progress(5.0)) == []
    segmenter.partial(Partial("", 0.2))
    assert list(segmenter.progress(5.08)) == [Segment("best", 0.0, 0.2)]


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=60))
def test_every_word_once_in_order(gaps_and_lengths: list[tuple[float, float]]) -> None:
    words, clock = [], 0.0
    for number, (gap, length) in enumerate(gaps_and_lengths):
        words.append(Word(str(number), clock + gap, clock + gap + length, 1.0))
        clock = words[-1].end
    segmenter = Segmenter()
    segments = [segment for word in words for segment in segmenter.word(word)] + list(segmenter.close())
    assert " ".join(segment.text for segment in segments).split() == [word.text for word in words]
    assert all(earlier.end <= later.start for earlier, later in pairwise(segments))
    assert all(segment.end - segment.start <= LONGEST_SECONDS for segment in segments)


def test_longest_segment() -> None:
    segmenter = Segmenter()
    segments = [segment for n in range(120) for segment in segmenter.word(Word("x", n * 0.5, n * 0.5 + 0.4, 1.0))]
    assert [round(segment.end - segment.start, 6) for segment in segments] == [14.9] * 3

"""Subtitles: readable, in order, and escaped; text and JSON as promised."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.messages import Segment, Word
from tympan.transcript.subtitles import CUE_SECONDS, LINE_CHARACTERS, PAUSE_SECONDS, cues, to_srt, to_vtt
from tympan.transcript.transcript import Transcript, to_json, to_text


def words_of(text: str, start: float = 0.0, seconds: float = 0.3, gap: float = 0.0) -> list[Word]:
    """One word after the other, each as long as the others."""
    step = seconds + gap
    return [
        Word(part, start + index * step, start + index * step + seconds, 1.0) for index, part in enumerate(text.split())
    ]


def transcript(words: list[Word], segments: list[Segment] | None = None) -> Transcript:
    return Transcript("talk.wav", "scripted", 10.0, words, segments or [])


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=60)
TIMES = st.floats(-0.5, 7200.0)
ANY_WORDS = st.lists(st.builds(Word, TEXTS, TIMES, TIMES, st.just(1.0)), max_size=40)
SPOKEN = st.lists(
    st.tuples(st.from_regex(r"[a-z]{1,40}", fullmatch=True), st.floats(0.01, 3.0), st.floats(0.0, 2.0)), max_size=40
)


@given(ANY_WORDS, st.lists(TIMES, max_size=5).map(sorted))
def test_cues_are_readable_and_in_order(words: list[Word], pauses: list[float]) -> None:
    shown = cues(words, [Segment("", start, start) for start in pauses])
    for cue in shown:
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < len(line) <= LINE_CHARACTERS for line in cue.lines)
        assert 0 <= cue.start_ms < cue.end_ms
        assert cue.end_ms - cue.start_ms <= CUE_SECONDS * 1000
    for cue, following in itertools.pairwise(shown):
        assert cue.end_ms <= following.start_ms


@given(SPOKEN)
def test_cues_keep_every_word(spoken: list[tuple[str, float, float]]) -> None:
    words: list[Word] = []
    clock = 0.0
    for text, seconds, gap in spoken:
        words.append(Word(text, clock + gap, clock + gap + seconds, 1.0))
        clock = words[-1].end
    shown = cues(words)
    texts = [" ".join(cue.lines).split() for cue in shown]
    assert [text for cue in texts for text in cue] == [word.text for word in words]

    remaining = iter(words)
    for cue, cue_texts in zip(shown, texts, strict=True):
        inside = [next(remaining) for _ in cue_texts]
        assert cue.start_ms == pytest.approx(inside[0].start * 1000, abs=1)
        assert all(later.start - word.end < PAUSE_SECONDS for word, later in itertools.pairwise(inside))


def test_segment_begins_a_cue() -> None:
    words = words_of("so it ends and then it goes on")
    segments = [Segment("so it ends", 0.0, 0.9), Segment("and then it goes on", 0.9, 2.4)]
    assert [cue.lines for cue in cues(words, segments)] == [("so it ends",), ("and then it goes on",)]


def test_lines_are_balanced() -> None:
    shown = cues(words_of("the quick brown fox jumps over the lazy dog today", seconds=0.2))
    assert [cue.lines for cue in shown] == [("the quick brown fox jumps", "over the lazy dog today")]


def test_short_cues_are_extended() -> None:
    alone, crowded = Word("yes", 1.0, 1.2, 1.0), [Word("yes", 1.0, 1.1, 1.0), Word("no", 1.9, 2.0, 1.0)]
    assert [(cue.start_ms, cue.end_ms) for cue in cues([alone])] == [(1000, 2000)]
    assert [(cue.start_ms, cue.end_ms) for cue in cues(crowded)] == [(1000, 1900), (1900, 2900)]


def test_long_word_is_divided() -> None:
    shown = cues([Word("x" * 100, 0.0, 3.0, 1.0)])
    assert "".join(line for cue in shown for line in cue.lines) == "x" * 100


def test_srt() -> None:
    words = [Word("one", 0.25, 0.6, 1.0), Word("-->", 3661.5, 3662.75, 1.0)]
    assert to_srt(transcript(words)) == (
        "1\n00:00:00,250 --> 00:00:01,250\none\n\n2\n01:01:01,500 --> 01:01:02,750\n→\n\n"
    )


def test_vtt() -> None:
    words = [Word("<b>&amp;", 0.25, 0.6, 1.0), Word("-->", 0.6, 0.9, 1.0)]
    assert to_vtt(transcript(words)) == ("WEBVTT\n\n00:00:00.250 --> 00:00:01.250\n&lt;b&gt;&amp;amp; --&gt;\n\n")


@given(ANY_WORDS)
def test_one_line_of_times_per_cue(words: list[Word]) -> None:
    count = len(cues(words))
    timing = re.compile(r"^\d\d+:\d\d:\d\d[.,]\d{3} --> \d\d+:\d\d:\d\d[.,]\d{3}$", re.MULTILINE)
    for text in (to_srt(transcript(words)), to_vtt(transcript(words))):
        assert len(timing.findall(text)) == text.count("-->") == count


def test_empty_transcript() -> None:
    assert (to_srt(transcript([])), to_vtt(transcript([])), to_text(transcript([]))) == ("", "WEBVTT\n\n", "")


def test_text() -> None:
    segments = [Segment("hello world", 0.0, 1.0), Segment("again", 2.0, 3.0)]
    assert to_text(transcript(words_of("hello world again"), segments)) == "hello world\nagain\n"


def test_json() -> None:
    line = to_json(transcript([Word("déjà", 0.0, 0.5, 0.75)], [Segment("déjà", 0.0, 0.5)]))
    assert line.count("\n") == 1
    assert "déjà" in line
    assert json.loads(line) == {
        "file": "talk.wav",
        "model": "scripted",
        "duration": 10.0,
        "text": "déjà",
        "words": [{"text": "déjà", "start": 0.0, "end": 0.5, "confidence": 0.75}],
        "segments": [{"text": "déjà", "start": 0.0, "end": 0.5}],
    }

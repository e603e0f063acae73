"""Subtitles in the formats SubRip and WebVTT.

They follow the rules of broadcasters: two lines of at most 42 characters, about seven seconds, divided at pauses. Cues
never overlap and are in order, whatever the times of the words.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tympan.messages import Segment, Word
from tympan.transcript.transcript import Transcript

LINE_CHARACTERS: Final = 42
CUE_LINES: Final = 2
CUE_SECONDS: Final = 7.0
SHORTEST_CUE_SECONDS: Final = 1.0
"""Shorter cues are extended to this duration if no other cue follows."""
PAUSE_SECONDS: Final = 0.7
"""A pause between two words that ends a cue."""
SAME_TIME_SECONDS: Final = 0.001
"""A segment and its first word start at the same time up to this difference, from rounding."""


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: its lines, and when it is shown, in milliseconds."""

    lines: tuple[str, ...]
    start_ms: int
    end_ms: int


def to_srt(transcript: Transcript) -> str:
    """Return the subtitles in the format SubRip."""
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_srt_text(cue)}\n\n"
        for number, cue in enumerate(cues(transcript.words, transcript.segments), 1)
    )


def to_vtt(transcript: Transcript) -> str:
    """Return the subtitles in the format WebVTT."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_vtt_text(cue)}\n\n"
        for cue in cues(transcript.words, transcript.segments)
    )


def cues(words: Sequence[Word], segments: Sequence[Segment] = ()) -> list[Cue]:
    """Return the cues of these words; a word longer than a line is divided."""
    groups = list(_groups(list(_pieces(words)), [segment.start - SAME_TIME_SECONDS for segment in segments]))
    starts: list[int] = []
    ends: list[int] = []
    for group in groups:
        start = max(_milliseconds(group[0].start), ends[-1] if ends else 0)
        end = min(_milliseconds(group[-1].end), start + _milliseconds(CUE_SECONDS))
        starts.append(start)
        ends.append(max(end, start + 1))
    for index, start in enumerate(starts):
        following = starts[index + 1] if index + 1 < len(starts) else start + _milliseconds(CUE_SECONDS)
        ends[index] = max(ends[index], min(start + _milliseconds(SHORTEST_CUE_SECONDS), following))
    texts = (_lines([word.text for word in group]) for group in groups)
    return [Cue(*cue) for cue in zip(texts, starts, ends, strict=True)]


def _pieces(words: Sequence[Word]) -> Iterator[Word]:
    """Yield words without spaces, none longer than a line; a piece gets its share of the word's time."""
    for word in words:
        texts = [
            text[first : first + LINE_CHARACTERS]
            for text in word.text.split()
            for first in range(0, len(text), LINE_CHARACTERS)
        ]
        step = (word.end - word.start) / max(len(texts), 1)
        for index, text in enumerate(texts):
            start = word.start + index * step
            yield Word(text, start, start + step, word.confidence)


def _groups(words: Sequence[Word], segment_starts: Sequence[float]) -> Iterator[list[Word]]:
    """Yield the words of each cue."""
    group: list[Word] = []
    for word in words:
        if group and _breaks(group, word, segment_starts):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _breaks(group: Sequence[Word], word: Word, segment_starts: Sequence[float]) -> bool:
    """Return whether `word` begins a new cue: at a segment or pause, or because the cue is too long."""
    last = group[-1]
    return (
        bisect_right(segment_starts, word.start) != bisect_right(segment_starts, last.start)
        or word.start - last.end >= PAUSE_SECONDS
        or word.end - group[0].start > CUE_SECONDS
        or len(_filled([*(word.text for word in group), word.text])) > CUE_LINES
    )


def _filled(texts: Sequence[str]) -> list[str]:
    """Return the fewest lines that hold the words, each filled before the next."""
    lines = [texts[0]]
    for text in texts[1:]:
        if len(lines[-1]) + 1 + len(text) <= LINE_CHARACTERS:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the words on one line, or on two of similar length."""
    if len(filled := _filled(texts)) == 1:
        return tuple(filled)
    pairs = ((" ".join(texts[:cut]), " ".join(texts[cut:])) for cut in range(1, len(texts)))
    return min(pairs, key=lambda pair: max(len(pair[0]), len(pair[1])))


def _srt_text(cue: Cue) -> str:
    """Replace arrows, which would be read as a line of times; SubRip has no escapes."""
    return "\n".join(cue.lines).replace("-->", "→")


def _vtt_text(cue: Cue) -> str:
    return "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _clock(milliseconds: int, separator: str) -> str:
    """Return a time such as `00:00:01,250`, with the format's decimal separator."""
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{thousandths:03}"

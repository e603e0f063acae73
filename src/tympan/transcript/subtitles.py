"""A finished transcript as text, subtitles (SubRip, WebVTT) and JSON.

Subtitles follow what broadcasters ask for: two lines of at most 42 characters, about seven seconds, cut where the
speaker pauses. Cues never overlap and never run backwards, whatever the times of the words say.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import asdict

from tympan.messages import Complete, Event, Lag, Ready, Segment, Word

LINE_CHARACTERS: Final = 42
CUE_LINES: Final = 2
CUE_SECONDS: Final = 7.0
SHORTEST_CUE_SECONDS: Final = 1.0
"""Shorter cues stay on the screen this long where nothing follows them."""
PAUSE_SECONDS: Final = 0.7
"""A silence between two words that ends a cue."""
SAME_TIME_SECONDS: Final = 0.001
"""A segment starts with its first word, however the two were rounded."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in one file. `duration` is seconds of audio; words and segments are in time order."""

    file: str
    model: str
    duration: float
    words: Sequence[Word]
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        """All words on one line."""
        return " ".join(word.text for word in self.words)


@dataclass(slots=True)
class Listening:
    """A transcript in the making: fed with every event of one file."""

    file: str
    model: str = ""
    duration: float = 0.0
    words: list[Word] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        match event:
            case Ready():
                self.model = event.model
            case Word():
                self.words.append(event)
            case Segment():
                self.segments.append(event)
            case Lag():
                self.duration = event.processed
            case Complete():
                self.duration = event.audio_seconds

    @property
    def transcript(self) -> Transcript:
        return Transcript(self.file, self.model, self.duration, self.words, self.segments)


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: its lines, and when it shows, in milliseconds."""

    lines: tuple[str, ...]
    start_ms: int
    end_ms: int


def to_text(transcript: Transcript) -> str:
    """One segment per line."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def to_json(transcript: Transcript) -> str:
    """One line of JSON: file, model, duration, text, words, segments."""
    fields = {
        "file": transcript.file,
        "model": transcript.model,
        "duration": transcript.duration,
        "text": transcript.text,
        "words": [asdict(word) for word in transcript.words],
        "segments": [asdict(segment) for segment in transcript.segments],
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip."""
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_srt_text(cue)}\n\n"
        for number, cue in enumerate(cues(transcript.words, transcript.segments), 1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_vtt_text(cue)}\n\n"
        for cue in cues(transcript.words, transcript.segments)
    )


def cues(words: Sequence[Word], segments: Sequence[Segment] = ()) -> list[Cue]:
    """Words gathered into subtitles. A word longer than a line is cut into pieces."""
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
    """The words without blanks in them, none longer than a line; a piece gets its share of the word's time."""
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
    """Consecutive words that make one cue each."""
    group: list[Word] = []
    for word in words:
        if group and _breaks(group, word, segment_starts):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _breaks(group: Sequence[Word], word: Word, segment_starts: Sequence[float]) -> bool:
    """Whether `word` begins a new cue: a new segment, a pause, too long to read, or no room left."""
    last = group[-1]
    return (
        bisect_right(segment_starts, word.start) != bisect_right(segment_starts, last.start)
        or word.start - last.end >= PAUSE_SECONDS
        or word.end - group[0].start > CUE_SECONDS
        or len(_filled([*(word.text for word in group), word.text])) > CUE_LINES
    )


def _filled(texts: Sequence[str]) -> list[str]:
    """Lines filled one after the other, the fewest that hold the words."""
    lines = [texts[0]]
    for text in texts[1:]:
        if len(lines[-1]) + 1 + len(text) <= LINE_CHARACTERS:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    """The words on as few lines as hold them, two lines about as long as each other."""
    if len(filled := _filled(texts)) == 1:
        return tuple(filled)
    pairs = ((" ".join(texts[:cut]), " ".join(texts[cut:])) for cut in range(1, len(texts)))
    return min(pairs, key=lambda pair: max(len(pair[0]), len(pair[1])))


def _srt_text(cue: Cue) -> str:
    """SubRip has no escapes: an arrow in the text would be read as a line of times."""
    return "\n".join(cue.lines).replace("-->", "→")


def _vtt_text(cue: Cue) -> str:
    return "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _clock(milliseconds: int, mark: str) -> str:
    """`00:00:01,250`, with the mark of the format."""
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{thousandths:03}"

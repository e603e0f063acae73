"""The transcript of a file, as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import asdict

from tympan.messages import Complete, Event, Lag, Ready, Segment, Word
from tympan.transcript.joining import append_word, text_of_words


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of one file. `duration` is seconds of audio; words and segments are in order of time."""

    file: str
    model: str
    duration: float
    words: Sequence[Word]
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        """All words, separated by spaces."""
        return text_of_words(self.words)


@dataclass(slots=True)
class TranscriptBuilder:
    """Builds a transcript from the events of one file."""

    file: str
    model: str = ""
    duration: float = 0.0
    words: list[Word] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        """Add an event."""
        match event:
            case Ready():
                self.model = event.model
            case Word():
                append_word(self.words, event)
            case Segment():
                self.segments.append(event)
            case Lag():
                self.duration = event.processed
            case Complete():
                self.duration = event.audio_seconds

    @property
    def transcript(self) -> Transcript:
        """The transcript of the events so far."""
        return Transcript(self.file, self.model, self.duration, self.words, self.segments)


def to_text(transcript: Transcript) -> str:
    """Return one line per segment."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def to_json(transcript: Transcript) -> str:
    """Return one line of JSON with file, model, duration, text, words and segments."""
    fields = {
        "file": transcript.file,
        "model": transcript.model,
        "duration": transcript.duration,
        "text": transcript.text,
        "words": [
            {"text": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
            for word in transcript.words
        ],
        "segments": [asdict(segment) for segment in transcript.segments],
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"

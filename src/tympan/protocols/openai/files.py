"""Responses of OpenAI's transcription endpoint, in each of its formats."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from tympan.messages import Segment, Word
from tympan.protocols.wire import json_text
from tympan.transcript.subtitles import to_srt, to_vtt
from tympan.transcript.transcript import Transcript

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
MEDIA_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def response_body(transcript: Transcript, format: str, language: str, granularities: Collection[str]) -> str:
    """Return the body of a response.

    Args:
        transcript: Transcript of the file.
        format: One of `FORMATS`.
        language: Name of the language, for `verbose_json`.
        granularities: What `verbose_json` contains: `word`, `segment` or both.
    """
    match format:
        case "text":
            return transcript.text + "\n"
        case "srt":
            return to_srt(transcript)
        case "vtt":
            return to_vtt(transcript)
        case "verbose_json":
            return json_text(_verbose(transcript, language, granularities or ("segment",)))
    return json_text({"text": transcript.text, "usage": _usage(transcript.duration)})


def _usage(audio_seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(audio_seconds)}


def delta_event(text: str) -> str:
    """Return the server-sent event of the next part of the text."""
    return _event({"type": "transcript.text.delta", "delta": text})


def done_event(transcript: Transcript) -> str:
    """Return the server-sent event with the whole text."""
    return _event({"type": "transcript.text.done", "text": transcript.text, "usage": _usage(transcript.duration)})


def error_event(error: Mapping[str, Any]) -> str:
    """Return the server-sent event of an error, which cannot change the status of the response any longer."""
    return _event({"type": "error", "error": error})


LAST_EVENT = "data: [DONE]\n\n"


def _verbose(transcript: Transcript, language: str, granularities: Collection[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "task": "transcribe",
        "language": language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "usage": _usage(transcript.duration),
    }
    if "word" in granularities:
        fields["words"] = [{"word": word.text, "start": word.start, "end": word.end} for word in transcript.words]
    if "segment" in granularities:
        fields["segments"] = [
            _segment(number, segment, transcript) for number, segment in enumerate(transcript.segments)
        ]
    return fields


def _segment(number: int, segment: Segment, transcript: Transcript) -> dict[str, Any]:
    """Return a segment with the mean log-probability of its words. The fields that only Whisper has are empty."""
    words = [word for word in transcript.words if segment.start <= word.start < segment.end]
    return {
        "id": number,
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(_mean_log_probability(words), 4),
        "compression_ratio": 0.0,
        "no_speech_prob": 0.0,
    }


def _mean_log_probability(words: Collection[Word]) -> float:
    return sum(math.log(max(word.confidence, 1e-9)) for word in words) / len(words) if words else 0.0


def _event(fields: Mapping[str, Any]) -> str:
    return f"data: {json_text(fields)}\n\n"

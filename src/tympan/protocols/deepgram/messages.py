"""The shapes of Deepgram's messages, for its live API, its file API and Flux."""

from __future__ import annotations

import string
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tympan.messages import Segment, Word
from tympan.protocols.base import Request, ServerInfo

_AROUND_A_WORD = string.punctuation + "«»“”„…¿¡—–"


def plain(text: str) -> str:
    """The word alone: lower case, without the punctuation that the model wrote around it."""
    return text.strip(_AROUND_A_WORD).lower() or text


def word_fields(word: Word) -> dict[str, Any]:
    return {
        "word": plain(word.text),
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": word.confidence,
        "punctuated_word": word.text,
    }


def alternative(words: Sequence[Word]) -> dict[str, Any]:
    """The one alternative that there is; its confidence is the mean of its words'."""
    confidence = sum(word.confidence for word in words) / len(words) if words else 0.0
    return {
        "transcript": " ".join(word.text for word in words),
        "confidence": round(confidence, 4),
        "words": [word_fields(word) for word in words],
    }


def utterance(segment: Segment, channel: int, words: Sequence[Word]) -> dict[str, Any]:
    """A segment of one channel, and the words in it."""
    return {"start": segment.start, "end": segment.end, "channel": channel, **alternative(words)}


def model_id(server_info: ServerInfo) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, server_info.model))


def model_info(server_info: ServerInfo) -> dict[str, str]:
    return {"name": server_info.model, "version": server_info.engine, "arch": "delayed-streams"}


def metadata(request: Request, audio_seconds: float, channels: int, sha256: str) -> dict[str, Any]:
    """What is told of a whole stream or file at its end."""
    return {
        "transaction_key": "deprecated",
        "request_id": request.id,
        "sha256": sha256,
        "created": datetime.fromtimestamp(request.opened_at, UTC).isoformat(timespec="milliseconds"),
        "duration": round(audio_seconds, 3),
        "channels": channels,
    }

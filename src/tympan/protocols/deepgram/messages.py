"""Messages of Deepgram's live API, file API and Flux, as objects that are encoded as JSON."""

from __future__ import annotations

import string
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tympan.messages import Partial, Segment, Word
from tympan.protocols.audio_start import CODE
from tympan.protocols.base import Request, ServerInfo, WireMessage
from tympan.protocols.unsupported import sentence
from tympan.protocols.wire import check_command_size, decode_json
from tympan.transcript.joining import whole_words

_PUNCTUATION = string.punctuation + "«»“”„…¿¡—–"

Fields = dict[str, Any]


class _GrantRequest(msgspec.Struct):
    ttl_seconds: int = 30


def parse_command(message: WireMessage) -> Fields:
    """Decode a text frame of a client.

    Raises:
        FrameError: The frame is not a JSON object.
        TooBigError: The frame is too big.
    """
    check_command_size(message)
    expected = 'audio is sent in binary frames; a text frame is a command such as {"type": "KeepAlive"}'
    return decode_json(message, Fields, expected)


def parse_grant(body: bytes) -> int:
    """Return the requested lifetime of a token, in seconds. Raises `FrameError` if the body is invalid."""
    return decode_json(body or b"{}", _GrantRequest, 'the body must be JSON such as {"ttl_seconds": 30}').ttl_seconds


def results(
    words: Sequence[Word],
    start: float,
    duration: float,
    channel_index: Sequence[int],
    about: Fields,
    *,
    is_final: bool = False,
    speech_final: bool = False,
    from_finalize: bool = False,
) -> Fields:
    """Return a `Results` message.

    Args:
        words: Words of the result.
        start: Start of the result, in seconds.
        duration: Duration of the result, in seconds.
        channel_index: Number of the channel, and number of channels.
        about: The stream's `live_metadata`.
        is_final: Whether the words are repeated in no later result.
        speech_final: Whether the speaker has paused.
        from_finalize: Whether the client requested the result with `Finalize`.
    """
    return {
        "type": "Results",
        "channel_index": channel_index,
        "start": round(start, 3),
        "duration": round(duration, 3),
        "is_final": is_final,
        "speech_final": speech_final,
        "from_finalize": from_finalize,
        "channel": {"alternatives": [alternative(words)]},
        "metadata": about,
    }


def live_metadata(request: Request, server_info: ServerInfo) -> Fields:
    """Return the metadata in every `Results` message of a stream."""
    return {"request_id": request.id, "model_uuid": model_id(server_info), "model_info": _model_info(server_info)}


def speech_started(channel_index: Sequence[int], time: float) -> Fields:
    """Return a `SpeechStarted` message."""
    return {"type": "SpeechStarted", "channel": channel_index, "timestamp": round(time, 3)}


def utterance_end(channel_index: Sequence[int], last_word_end: float) -> Fields:
    """Return an `UtteranceEnd` message."""
    return {"type": "UtteranceEnd", "channel": channel_index, "last_word_end": round(last_word_end, 3)}


def warning(sentence: str) -> Fields:
    """Return a `Warning`, in the form of Deepgram's agent API; the live APIs have none."""
    return {"type": "Warning", "code": CODE.upper(), "description": sentence}


def metadata(
    request: Request, audio_seconds: float, channels: int, sha256: str, unsupported: Collection[str] = ()
) -> Fields:
    """Return the metadata of a stream or a file.

    Args:
        request: The request of the client.
        audio_seconds: Duration of the audio.
        channels: Number of channels.
        sha256: Digest of the audio.
        unsupported: Parameters that had no effect, which become Deepgram's `warnings`.
    """
    warnings = [
        {
            "parameter": name,
            "type": "unsupported_language" if name == "language" else "unsupported_model",
            "message": sentence([name]),
        }
        for name in unsupported
    ]
    return {
        **({"warnings": warnings} if warnings else {}),
        "transaction_key": "deprecated",
        "request_id": request.id,
        "sha256": sha256,
        "created": datetime.fromtimestamp(request.opened_at, UTC).isoformat(timespec="milliseconds"),
        "duration": round(audio_seconds, 3),
        "channels": channels,
    }


def file_response(
    server_info: ServerInfo, about: Fields, channels: Sequence[Sequence[Word]], utterances: Sequence[Fields] | None
) -> Fields:
    """Return the response to a file.

    Args:
        server_info: Properties of the model.
        about: The file's `metadata`.
        channels: Words of each channel.
        utterances: Utterances of all channels; `None`: the client did not request them.
    """
    model = model_id(server_info)
    transcripts: Fields = {"channels": [{"alternatives": [alternative(words)]} for words in channels]}
    if utterances is not None:
        transcripts["utterances"] = utterances
    return {
        "metadata": {**about, "models": [model], "model_info": {model: _model_info(server_info)}},
        "results": transcripts,
    }


def utterance(segment: Segment, channel: int, words: Sequence[Word]) -> Fields:
    """Return an utterance of a file: a segment of one channel, and its words."""
    return {"start": segment.start, "end": segment.end, "channel": channel, **alternative(words)}


def turn_info(
    event: str, turn_index: int, start: float, end: float, words: Sequence[Word], partial: Partial, confidence: float
) -> Fields:
    """Return the content of a `TurnInfo` message.

    Args:
        event: What happened to the turn: `StartOfTurn`, `Update`, `EagerEndOfTurn`, `TurnResumed` or `EndOfTurn`.
        turn_index: Number of the turn.
        start: Start of the turn, in seconds.
        end: End of the audio that is transcribed, in seconds.
        words: Words of the turn.
        partial: What follows the words, and may still change.
        confidence: Probability that the turn has ended.
    """
    fields: list[Fields] = [
        {"word": word.text, "confidence": word.confidence, "start": word.start, "end": word.end}
        for word in whole_words(words)
    ]
    pending = partial.text.split()
    if partial.glued and fields and pending:
        fields[-1] |= {"word": fields[-1]["word"] + pending.pop(0), "confidence": 0.0}
    fields += [{"word": text, "confidence": 0.0, "start": partial.start} for text in pending]
    return {
        "event": event,
        "turn_index": turn_index,
        "audio_window_start": round(start, 3),
        "audio_window_end": round(max(start, end), 3),
        "transcript": " ".join(word["word"] for word in fields),
        "words": fields,
        "end_of_turn_confidence": round(confidence, 4),
    }


def alternative(words: Sequence[Word]) -> Fields:
    """Return the only alternative of a result. Its confidence is the mean of that of its words."""
    words = whole_words(words)
    confidence = sum(word.confidence for word in words) / len(words) if words else 0.0
    return {
        "transcript": " ".join(word.text for word in words),
        "confidence": round(confidence, 4),
        "words": [
            {
                "word": strip_punctuation(word.text),
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": word.confidence,
                "punctuated_word": word.text,
            }
            for word in words
        ],
    }


def strip_punctuation(text: str) -> str:
    """Return the word in lower case, without the punctuation around it."""
    return text.strip(_PUNCTUATION).lower() or text


def model_id(server_info: ServerInfo) -> str:
    """Return a UUID that identifies the model."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, server_info.model))


def _model_info(server_info: ServerInfo) -> dict[str, str]:
    return {"name": server_info.model, "version": server_info.engine, "arch": "delayed-streams"}

"""Tympan's own protocol: binary audio up, JSON text down. Every message and field: `docs/protocols/native.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.audio.format import parse_format
from tympan.errors import AccessError, FrameError, ParameterError, TympanError
from tympan.messages import (
    AudioFormat,
    Complete,
    Event,
    Flush,
    Flushed,
    KeepAlive,
    Lag,
    Partial,
    Ready,
    Restarting,
    Segment,
    Turn,
    Vad,
    Warning,
    Word,
)
from tympan.protocols.audio_start import CODE, AudioStart
from tympan.protocols.base import (
    Action,
    Answer,
    CloseInfo,
    Droppable,
    Refusal,
    Request,
    ResumableProtocol,
    ResumeRequest,
    ServerInfo,
    WireMessage,
)
from tympan.protocols.errors import close_code, public_error
from tympan.protocols.unsupported import knows_language, requested, sentence
from tympan.protocols.wire import check_command_size, decode_json, json_refusal, json_text
from tympan.transcript.joining import text_after

SELECTABLE: Mapping[str, type[Event]] = {
    "ready": Ready,
    "partial": Partial,
    "word": Word,
    "segment": Segment,
    "turn": Turn,
    "vad": Vad,
    "lag": Lag,
}
ALWAYS: Mapping[str, type[Event]] = {
    "warning": Warning,
    "flushed": Flushed,
    "restarting": Restarting,
    "complete": Complete,
}
TYPE_NAMES: Mapping[type[Event], str] = {kind: name for names in (SELECTABLE, ALWAYS) for name, kind in names.items()}

DROPPABLE = (Vad, Lag, Partial)
UNSUPPORTED = ("diarize", "keyterm", "keyterms", "keywords", "profanity_filter", "prompt", "redact", "translate")

WANTS_TOKEN = "yes"
MAX_DIGITS = 15


class _Command(msgspec.Struct):
    type: str
    id: int = 0


class NativeProtocol(ResumableProtocol):
    """One stream. The client selects the typed form of the messages with `events`; otherwise the form is simple."""

    name: ClassVar[str] = "native"

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        super().__init__(request, server_info)
        self._channels = 1
        self._events: frozenset[type[Event]] | None = None  # None selects the simple form
        self._channels_with_words: set[int] = set()
        self._final_texts: dict[int, list[str]] = {}  # by channel, after the end of the audio
        self._token = ""
        self._audio_bytes = 0
        self._flushes = 0
        self._audio_start = AudioStart(AudioFormat(), is_declared=True, warn=self._warn)  # until `start`

    def credential(self) -> str | None:
        return self._request.authorization("bearer") or self._request.query.get("token")

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        if isinstance(error, ParameterError):
            return self.close_with_error(error)  # browsers cannot read the response to a refused upgrade
        code, message = public_error(error)
        headers = {"www-authenticate": "Bearer"} if isinstance(error, AccessError) else {}
        return json_refusal(error, {"error": {"code": code, "message": message}}, headers)

    def start(self) -> AudioFormat:
        query = self._request.query
        audio_format = parse_format(query.get("encoding"), query.get("sample_rate"), query.get("channels"))
        self.unsupported.update(dict.fromkeys(requested(query, UNSUPPORTED)))
        if not knows_language(self._server_info.languages, query.get("language")):
            self.unsupported["language"] = None
        is_declared = "encoding" in query or "sample_rate" in query
        self._audio_start = AudioStart(audio_format, is_declared, self._warn)
        self._channels = audio_format.channels
        events = self._events = _parse_events(query.get("events"))
        self.wants_vad = Vad in (events or ())
        self._final_texts = {channel: [] for channel in range(self._channels)}
        if self.wants_token() and Ready not in (events or ()):
            raise ParameterError("resume=yes requires events=ready: the ready message carries the token")
        return audio_format

    def resume_request(self) -> ResumeRequest | None:
        token, received = self._request.query.get("resume"), self._request.query.get("received", "")
        if not token or token == WANTS_TOKEN:
            return None
        if not (received.isascii() and received.isdecimal() and len(received) <= MAX_DIGITS):
            raise ParameterError("resume=TOKEN requires received=N, the number of messages received")
        return ResumeRequest(token, int(received))

    def wants_token(self) -> bool:
        return self._request.query.get("resume") == WANTS_TOKEN

    def give_token(self, token: str) -> None:
        self._token = token

    def resumed(self) -> WireMessage:
        return json_text({"type": "resumed", "audio_bytes": self._audio_bytes, "flushes": self._flushes})

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        if message in ("EOS", b"EOS"):
            return self._finish()
        if isinstance(message, bytes):
            self._audio_bytes += len(message)
            return self._audio_start.receive(message)
        expected = (
            'audio is sent in binary frames; a text frame must be EOS or a command such as {"type": "flush", "id": 1}'
        )
        check_command_size(message)
        command = decode_json(message, _Command, expected)
        match command.type:
            case "flush":
                self._flushes += 1
                return (Flush(command.id),)
            case "keepalive":
                return (KeepAlive(),)
            case "finish":
                return self._finish()
        raise FrameError(f"unknown command {command.type[:40]!r}; the commands are flush, keepalive and finish")

    def _warn(self, sentence: str, code: str = CODE) -> str:
        """Return the warning; in the simple form it is part of a message that adds no text."""
        if self._events is None:
            return json_text({"text": "", "final": False, "warning": sentence})
        return json_text(self._typed(Warning(code, sentence)))

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        if isinstance(event, Flushed):
            return (self._encode({"type": "flushed", "id": event.marker}, channel),)
        if isinstance(event, Ready) and self.unsupported:
            warning = self._warn(sentence(self.unsupported), "unsupported")
            return (*self._answers(event, channel), warning)
        return self._answers(event, channel)

    def _answers(self, event: Event, channel: int) -> Sequence[Answer]:
        if self._events is None:
            return [self._encode(fields, channel) for fields in self._simple(event, channel)]
        if type(event) not in self._events:
            return ()
        message = self._encode(self._typed(event), channel)
        return (Droppable(message) if isinstance(event, DROPPABLE) else message,)

    def _simple(self, event: Event, channel: int) -> Iterator[dict[str, Any]]:
        """Yield one message per word, and what is left after the end of the audio as one text per channel."""
        if isinstance(event, Word):
            text = text_after(channel in self._channels_with_words, event)
            self._channels_with_words.add(channel)
            if self._finishing:
                self._final_texts[channel].append(text)
            else:
                yield {"text": text, "final": False}
        elif isinstance(event, Complete):
            for number, texts in self._final_texts.items():
                yield {"text": "".join(texts), "final": True, **({"channel": number} if self._channels > 1 else {})}
            yield {"status": "complete"}

    def _typed(self, event: Event) -> dict[str, Any]:
        fields = {"type": TYPE_NAMES[type(event)], **msgspec.to_builtins(event)}
        if isinstance(event, Complete):
            fields["status"] = "complete"
        if isinstance(event, Ready) and self._token:
            fields["resume"] = self._token
        return fields

    def _encode(self, fields: dict[str, Any], channel: int) -> str:
        if self._channels > 1 and "status" not in fields:
            fields.setdefault("channel", channel)
        return json_text(fields)

    def close_with_error(self, error: Exception) -> CloseInfo:
        code, message = public_error(error)
        text = json_text({"type": "error", "code": code, "message": message})
        return CloseInfo((text,), close_code(error), message)


def _parse_events(text: str | None) -> frozenset[type[Event]] | None:
    """Return the event types that the parameter `events` selects, or `None` for the simple form."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if not names:
        return None
    unknown = [name for name in names if name not in SELECTABLE and name not in ALWAYS and name not in ("all", "error")]
    if unknown:
        raise ParameterError(f"unknown events {unknown[0][:40]!r}; the events are {', '.join(SELECTABLE)}, or all")
    chosen = SELECTABLE.values() if "all" in names else [SELECTABLE[name] for name in names if name in SELECTABLE]
    return frozenset(chosen) | frozenset(ALWAYS.values())

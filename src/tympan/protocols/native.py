"""Tympan's own protocol: binary audio up, JSON text down. Every message and field: `docs/protocols/native.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.audio.format import parse_format
from tympan.errors import AccessError, FrameError, ParameterError, RestartingError, TympanError
from tympan.messages import (
    Audio,
    AudioFormat,
    Command,
    Complete,
    Event,
    Finish,
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
from tympan.protocols.base import (
    Acceptance,
    Answer,
    CloseInfo,
    Droppable,
    Refusal,
    Request,
    ResumeRequest,
    ServerInfo,
    WireMessage,
    close_code,
    json_refusal,
    json_text,
    public_error,
)

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

PASSING = (Vad, Lag, Partial)
SIMPLE = (Word, Flushed, Complete)

END_OF_STREAM, END_OF_STREAM_BYTES = "EOS", b"EOS"

WANTS_TOKEN = "yes"
MOST_DIGITS = 16


class _CommandFrame(msgspec.Struct):
    type: str
    id: int = 0


class NativeProtocol:
    """`start` decides between the simple form and the typed one; both are sent by one small function each."""

    name: ClassVar[str] = "native"

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._channels = 1
        self._wanted: frozenset[type[Event]] | None = None
        self._spoken: set[int] = set()
        self._finishing = False
        self._tails: dict[int, list[str]] = {}
        self._token = ""
        self._audio_bytes = 0
        self._flushes = 0

    @property
    def wants_vad(self) -> bool:
        return self._wanted is not None and Vad in self._wanted

    def credential(self) -> str | None:
        return self._request.bearer or self._request.query.get("token")

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        if isinstance(error, ParameterError):
            return self.fail(error)  # told after the upgrade: a browser cannot see the answer to a refused one
        code, message = public_error(error)
        headers = {"www-authenticate": "Bearer"} if isinstance(error, AccessError) else {}
        return json_refusal(error, {"error": {"code": code, "message": message}}, headers)

    def accept(self) -> Acceptance:
        return Acceptance()

    def start(self) -> AudioFormat:
        query = self._request.query
        audio_format = parse_format(query.get("encoding"), query.get("sample_rate"), query.get("channels"))
        self._channels = audio_format.channels
        self._wanted = _parse_events(query.get("events"))
        self._tails = {channel: [] for channel in range(self._channels)}
        if self.wants_token() and Ready not in (self._wanted or ()):
            raise ParameterError("resume=yes goes with events=ready: the token comes in that message")
        return audio_format

    def resume_request(self) -> ResumeRequest | None:
        token, received = self._request.query.get("resume"), self._request.query.get("received", "")
        if not token or token == WANTS_TOKEN:
            return None
        if not (received.isascii() and received.isdecimal() and len(received) < MOST_DIGITS):
            raise ParameterError("resume=TOKEN goes with received=N, the number of messages that came")
        return ResumeRequest(token, int(received))

    def wants_token(self) -> bool:
        return self._request.query.get("resume") == WANTS_TOKEN

    def give_token(self, token: str) -> None:
        self._token = token

    def resumed(self) -> WireMessage:
        return json_text({"type": "resumed", "audio_bytes": self._audio_bytes, "flushes": self._flushes})

    def receive(self, message: WireMessage) -> Sequence[Command]:
        if self._finishing:
            return ()
        if isinstance(message, bytes):
            if message == END_OF_STREAM_BYTES:
                return self._finish()
            self._audio_bytes += len(message)
            return (Audio(message),)
        if message == END_OF_STREAM:
            return self._finish()
        frame = _parse_command(message)
        match frame.type:
            case "flush":
                self._flushes += 1
                return (Flush(frame.id),)
            case "keepalive":
                return (KeepAlive(),)
            case "finish":
                return self._finish()
        raise FrameError(f"unknown command {frame.type[:40]!r}; the commands are flush, keepalive and finish")

    def _finish(self) -> Sequence[Command]:
        self._finishing = True
        return (Finish(),)

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        if self._wanted is None and not isinstance(event, SIMPLE):
            return ()
        if isinstance(event, Flushed):
            return (self._encode({"type": "flushed", "id": event.marker}, channel),)
        form: Callable[[Event, int], Iterator[dict[str, Any]]] = self._simple if self._wanted is None else self._typed
        messages = [self._encode(fields, channel) for fields in form(event, channel)]
        return [Droppable(message) for message in messages] if isinstance(event, PASSING) else messages

    def _simple(self, event: Event, channel: int) -> Iterator[dict[str, Any]]:
        if isinstance(event, Word):
            text = f" {event.text}" if channel in self._spoken else event.text
            self._spoken.add(channel)
            if self._finishing:
                self._tails[channel].append(text)
            else:
                yield {"text": text, "final": False}
        elif isinstance(event, Complete):
            for tail_channel, tail in self._tails.items():
                marked = {"channel": tail_channel} if self._channels > 1 else {}
                yield {"text": "".join(tail), "final": True, **marked}
            yield {"status": "complete"}

    def _typed(self, event: Event, channel: int) -> Iterator[dict[str, Any]]:
        assert self._wanted is not None
        if type(event) not in self._wanted:
            return
        fields = {"type": TYPE_NAMES[type(event)], **msgspec.structs.asdict(event)}
        if isinstance(event, Complete):
            fields["status"] = "complete"
        if isinstance(event, Ready) and self._token:
            fields["resume"] = self._token
        yield fields

    def _encode(self, fields: dict[str, Any], channel: int) -> str:
        if self._channels > 1 and "status" not in fields:
            fields.setdefault("channel", channel)
        return json_text(fields)

    def fail(self, error: Exception | None) -> CloseInfo:
        if error is None:
            return CloseInfo((), close_code(error), "")
        code, message = public_error(error)
        if isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), message)
        last_words = json_text({"type": "error", "code": code, "message": message})
        return CloseInfo((last_words,), close_code(error), message)


def _parse_events(text: str | None) -> frozenset[type[Event]] | None:
    """The event types asked for by `events=`, or `None` for the simple form. Raises `ParameterError`."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if not names:
        return None
    unknown = [name for name in names if name not in SELECTABLE and name not in ALWAYS and name not in ("all", "error")]
    if unknown:
        raise ParameterError(f"unknown events {unknown[0][:40]!r}; the events are {', '.join(SELECTABLE)}, or all")
    chosen = SELECTABLE.values() if "all" in names else [SELECTABLE[name] for name in names if name in SELECTABLE]
    return frozenset(chosen) | frozenset(ALWAYS.values())


def _parse_command(message: str) -> _CommandFrame:
    try:
        return msgspec.json.decode(message, type=_CommandFrame)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise FrameError(
            'audio is sent in binary frames; a text frame must be EOS or a command such as {"type": "flush", "id": 1}'
        ) from None

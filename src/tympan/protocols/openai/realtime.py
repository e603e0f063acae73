"""OpenAI's realtime transcription sessions: JSON both ways, audio in base64. Every message: `docs/protocols/openai.md`.

Nothing harmless is answered with an `error`: some clients give up at the first one. A socket that turns out to speak
vLLM's dialect is handed to `vllm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from tympan.errors import FrameError, RestartingError, TympanError
from tympan.messages import Audio, AudioFormat, Complete, Event, Flush, Flushed, Ready, SetFormat, Vad, Word
from tympan.protocols.base import (
    Acceptance,
    Action,
    Answer,
    CloseInfo,
    Refusal,
    Request,
    ServerInfo,
    WireMessage,
    base64_audio,
    close_code,
    json_text,
    public_error,
)
from tympan.protocols.openai import access as openai_access
from tympan.protocols.openai.session import SessionSettings
from tympan.protocols.openai.vllm import VllmDialect
from tympan.transcript.endpoints import Endpoint, Endpointer

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class OpenAIProtocol:
    """One session. What is said between two commits, the client's or the server's, is one item."""

    name: ClassVar[str] = "openai"
    wants_vad: ClassVar[bool] = True

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._server_info = server_info
        self._settings = SessionSettings(request, server_info)
        self._endpointer = Endpointer(self._settings.rule, server_info.pause_horizons)
        self._beta = "openai-beta" in request.headers
        self._dialect: VllmDialect | None = None
        self._events = 0
        self._items = 1
        self._committed: str | None = None  # the item before this one, as far as the client knows
        self._words: list[Word] = []
        self._told_start = False
        self._item_start = 0.0
        self._heard = 0.0
        self._flushes: dict[int, Literal["commit", "clear"] | Endpoint] = {}  # what for
        self._markers = 0

    def credential(self) -> str | None:
        return openai_access.credential(self._request)

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        return openai_access.refusal(error)

    def accept(self) -> Acceptance:
        return openai_access.acceptance(self._request)

    def start(self) -> AudioFormat:
        self._server_info.check_model(self._request.query.get("model"))
        return self._settings.audio_format

    def receive(self, message: WireMessage) -> Sequence[Action]:
        frame = parse_frame(message)
        if self._dialect is not None:
            return self._dialect.receive(frame)
        match frame.get("type"):
            case "session.update" if "session" not in frame and "model" in frame:
                self._dialect = VllmDialect(self._server_info)
                return self._dialect.receive(frame)
            case "session.update" | "transcription_session.update":
                return self._update(frame)
            case "input_audio_buffer.append":
                return (Audio(base64_audio(frame.get("audio"))),)
            case "input_audio_buffer.commit":
                return (self._flush("commit"),)
            case "input_audio_buffer.clear":
                return (self._flush("clear"),)
        return ()

    def _update(self, frame: dict[str, Any]) -> Sequence[Action]:
        before = self._settings.audio_format
        self._settings.update(frame.get("session"))
        self._endpointer.rule = self._settings.rule
        now = self._settings.audio_format
        name = "transcription_session.updated" if frame["type"].startswith("transcription") else "session.updated"
        told = self._tell(name, session=self._settings.fields())
        return (told,) if now == before else (SetFormat(now), told)

    def _flush(self, what_for: Literal["commit", "clear"] | Endpoint) -> Flush:
        self._markers += 1
        self._flushes[self._markers] = what_for
        return Flush(self._markers)

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        if self._dialect is not None:
            return self._dialect.send(event)
        match event:
            case Ready():
                name = "transcription_session.created" if self._beta else "session.created"
                # The two last ones are what vLLM's clients look for; it is too early to know who this is.
                ids = {"id": f"sess_{self._request.id}", "created": int(self._request.opened_at)}
                return (self._tell(name, session=self._settings.fields(), **ids),)
            case Flushed():
                return tuple(self._on_flushed(event.marker))
            case Complete():
                return tuple(self._commit(self._heard)) if self._words else ()
            case Vad():
                self._heard = max(self._heard, event.time)
        endpoint = self._endpointer.overtaken(event)
        ended = () if endpoint is None else self._commit(endpoint.end_of(self._words))
        return (*ended, *self._on_speech(event))

    def _on_speech(self, event: Event) -> Iterator[WireMessage | Flush]:
        for endpoint in self._endpointer.hear(event):
            if endpoint.kind == "started" and self._endpointer.rule is not None:
                self._told_start = True
                milliseconds = round(1000 * endpoint.time)
                yield self._tell("input_audio_buffer.speech_started", audio_start_ms=milliseconds, item_id=self._item)
            elif endpoint.kind == "ended":
                yield self._flush(endpoint)
        if isinstance(event, Word):
            self._heard = max(self._heard, event.end)
            if next(iter(self._flushes.values()), None) == "clear":
                return  # of audio that the client has thrown away
            delta = f" {event.text}" if self._words else event.text
            self._words.append(event)
            yield self._tell(f"{TRANSCRIPTION}.delta", **self._of_item(), delta=delta)

    def _on_flushed(self, marker: int) -> Iterator[WireMessage]:
        what_for = self._flushes.pop(marker)
        if isinstance(what_for, Endpoint):
            if self._endpointer.settle(what_for):  # else the client committed before its words were there
                yield from self._commit(what_for.end_of(self._words))
        elif what_for == "clear":
            self._next_item(self._heard)
            yield self._tell("input_audio_buffer.cleared")
        else:
            yield from self._commit(self._heard)

    def _commit(self, end: float) -> Iterator[WireMessage]:
        """An item is complete, empty or not."""
        item, previous = self._item, self._committed
        if self._told_start:
            milliseconds = round(1000 * end)
            yield self._tell("input_audio_buffer.speech_stopped", audio_end_ms=milliseconds, item_id=item)
        yield self._tell("input_audio_buffer.committed", previous_item_id=previous, item_id=item)
        yield self._tell(
            "conversation.item.created" if self._beta else "conversation.item.added",
            previous_item_id=previous,
            item={
                "id": item,
                "object": "realtime.item",
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": [{"type": "input_audio", "transcript": None}],
            },
        )
        seconds = round(max(end - self._item_start, 0.0), 3)
        yield self._tell(
            f"{TRANSCRIPTION}.completed",
            **self._of_item(),
            transcript=" ".join(word.text for word in self._words),
            words=[
                {"word": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
                for word in self._words
            ],
            usage={"type": "duration", "seconds": seconds},
        )
        self._committed = item
        self._next_item(end)

    def _next_item(self, start: float) -> None:
        self._endpointer.end()
        self._items += 1
        self._words = []
        self._told_start = False
        self._item_start = start

    @property
    def _item(self) -> str:
        return f"item_{self._items}"

    def _of_item(self) -> dict[str, Any]:
        return {"item_id": self._item, "content_index": 0}

    def _tell(self, kind: str, **fields: Any) -> str:
        self._events += 1
        return json_text({"type": kind, "event_id": f"event_{self._events}", **fields})

    def fail(self, error: Exception | None) -> CloseInfo:
        if error is None or isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), "" if error is None else str(error))
        _, message = public_error(error)
        if self._dialect is not None:
            return CloseInfo((self._dialect.error(error),), close_code(error), message)
        told = self._tell("error", error={**openai_access.error_fields(error), "event_id": None})
        return CloseInfo((told,), close_code(error), message)


def parse_frame(message: WireMessage) -> dict[str, Any]:
    """An event of a client. Raises `FrameError`."""
    try:
        frame = msgspec.json.decode(message) if isinstance(message, str) else None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        frame = None
    if not isinstance(frame, dict):
        raise FrameError("events are JSON objects in text frames; audio goes into input_audio_buffer.append")
    return frame

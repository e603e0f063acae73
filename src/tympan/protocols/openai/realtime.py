"""OpenAI's realtime transcription sessions: JSON both ways, audio in base64. Every message: `docs/protocols/openai.md`.

As with OpenAI, the session continues after an `error` about audio that is not base64, audio that begins like a file, or
a commit without audio. All other errors end it. A connection whose first `session.update` is in vLLM's dialect is
handled by `vllm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from tympan.errors import AudioError, FrameError, TympanError
from tympan.messages import AudioFormat, Complete, Event, Flush, Flushed, Ready, SetFormat, Vad, Word
from tympan.protocols.audio_start import CODE, AudioStart
from tympan.protocols.base import (
    Acceptance,
    Action,
    Answer,
    CloseInfo,
    PendingFlushes,
    Refusal,
    Request,
    ServerInfo,
    ServerProtocol,
    WireMessage,
)
from tympan.protocols.errors import close_code, public_error
from tympan.protocols.openai import access
from tympan.protocols.openai.session import SessionSettings
from tympan.protocols.openai.vllm import VllmDialect
from tympan.protocols.wire import MOST_COMMAND_BYTES, base64_audio, check_command_size, decode_json, json_text
from tympan.transcript.joining import append_word, text_after, text_of_words
from tympan.transcript.turns import Endpoint, Endpointer

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class _Append(msgspec.Struct):
    type: str
    audio: str | None = None
    event_id: str | None = None


class OpenAIProtocol(ServerProtocol):
    """One session. The speech between two commits, by the client or by the server, is one item."""

    name: ClassVar[str] = "openai"

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        super().__init__(request, server_info)
        self._settings = SessionSettings(request, server_info)
        self._endpointer = Endpointer(self._settings.rule, server_info.pause_horizons)
        self._beta = "openai-beta" in request.headers
        self._dialect: VllmDialect | None = None
        self._events = 0
        self._audio_start = self._new_audio_start()
        self._has_audio = False  # since the client's last commit or clear
        self._items = 1
        self._committed: str | None = None  # the last committed item
        self._words: list[Word] = []
        self._has_started = False  # whether speech_started has been sent for the current item
        self._item_start = 0.0
        self._audio_end = 0.0  # of the transcribed audio, in seconds
        self._flushes: PendingFlushes[Literal["commit", "clear"] | Endpoint] = PendingFlushes()

    def credential(self) -> str | None:
        return access.credential(self._request)

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        return access.refusal(error)

    def accept(self) -> Acceptance:
        return access.acceptance(self._request)

    def start(self) -> AudioFormat:
        self._server_info.check_model(self._request.query.get("model"))
        return self._settings.audio_format

    def receive(self, message: WireMessage) -> Sequence[Action]:
        expected = "events are JSON objects in text frames; audio is sent with input_audio_buffer.append"
        if isinstance(message, bytes):
            raise FrameError(expected)
        event = _decode(message, expected)
        if self._dialect is not None:
            return self._dialect.receive(event)
        match event.get("type"):
            case "session.update" if "session" not in event and "model" in event:
                self._dialect = VllmDialect(self._server_info)
                return self._dialect.receive(event)
            case "session.update":
                return self._update(event, "session.updated")
            case "transcription_session.update":
                return self._update(event, "transcription_session.updated")
            case "input_audio_buffer.append":
                return self._append(event)
            case "input_audio_buffer.commit":
                if not self._has_audio:
                    message = "the input audio buffer is empty; append audio before the commit"
                    return (self._error("input_audio_buffer_commit_empty", message, event.get("event_id")),)
                self._has_audio = False
                return (self._flushes.add("commit"),)
            case "input_audio_buffer.clear":
                self._has_audio = False
                return (self._flushes.add("clear"),)
        return ()

    def _append(self, event: dict[str, Any]) -> Sequence[Action]:
        try:
            audio = base64_audio(event.get("audio"))
        except AudioError as error:
            return (self._error("invalid_value", str(error), event.get("event_id"), "audio"),)
        self._has_audio = self._has_audio or bool(audio)
        return self._audio_start.receive(audio)

    def _new_audio_start(self) -> AudioStart:
        declared = self._settings.declares_format
        return AudioStart(self._settings.audio_format, declared, lambda sentence: self._error(CODE, sentence))

    def _error(self, code: str, message: str, event_id: object = None, param: str | None = None) -> str:
        """Return an error after which the session continues."""
        fields = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        return self._encode("error", error={**fields, "event_id": event_id if isinstance(event_id, str) else None})

    def _update(self, event: dict[str, Any], answer: str) -> Sequence[Action]:
        before, was_declared = self._settings.audio_format, self._settings.declares_format
        self._settings.update(event.get("session"))
        self.unsupported.update(self._settings.unsupported)
        self._endpointer.rule = self._settings.rule
        audio_format = self._settings.audio_format
        updated = self._encode(answer, session=self._settings.fields())
        if self._settings.declares_format and not was_declared:
            self._audio_start = self._new_audio_start()
        if audio_format == before:
            return (updated,)
        self._audio_start = self._new_audio_start()
        return (SetFormat(audio_format), updated)

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        if self._dialect is not None:
            return self._dialect.send(event)
        match event:
            case Ready():
                name = "transcription_session.created" if self._beta else "session.created"
                # vLLM's clients, which cannot be distinguished yet, read the id and the time.
                ids = {"id": f"sess_{self._request.id}", "created": int(self._request.opened_at)}
                return (self._encode(name, session=self._settings.fields(), **ids),)
            case Flushed():
                return tuple(self._on_flushed(event.marker))
            case Complete():
                return tuple(self._commit(self._audio_end)) if self._words else ()
            case Vad():
                self._audio_end = max(self._audio_end, event.time)
        endpoint = self._endpointer.overtaken(event)
        ended = () if endpoint is None else self._commit(endpoint.end_of(self._words))
        return (*ended, *self._on_speech(event))

    def _on_speech(self, event: Event) -> Iterator[WireMessage | Flush]:
        for endpoint in self._endpointer.on_event(event):
            if endpoint.kind == "started" and self._endpointer.rule is not None:
                self._has_started = True
                milliseconds = round(1000 * endpoint.time)
                yield self._encode("input_audio_buffer.speech_started", audio_start_ms=milliseconds, item_id=self._item)
            elif endpoint.kind == "ended":
                yield self._flushes.add(endpoint)
        if isinstance(event, Word):
            self._audio_end = max(self._audio_end, event.end)
            if next(iter(self._flushes.values()), None) == "clear":
                return  # the client has discarded the audio of this word
            delta = text_after(bool(self._words), event)
            append_word(self._words, event)
            yield self._encode(f"{TRANSCRIPTION}.delta", **self._of_item(), delta=delta)

    def _on_flushed(self, marker: int) -> Iterator[WireMessage]:
        purpose = self._flushes.pop(marker)
        if isinstance(purpose, Endpoint):
            if self._endpointer.confirm(purpose):  # otherwise the client has committed the item before
                yield from self._commit(purpose.end_of(self._words))
        elif purpose == "clear":
            self._next_item(self._audio_end)
            yield self._encode("input_audio_buffer.cleared")
        else:
            yield from self._commit(self._audio_end)

    def _commit(self, end: float) -> Iterator[WireMessage]:
        """Complete the current item, which may be empty."""
        item, previous = self._item, self._committed
        if self._has_started:
            milliseconds = round(1000 * end)
            yield self._encode("input_audio_buffer.speech_stopped", audio_end_ms=milliseconds, item_id=item)
        yield self._encode("input_audio_buffer.committed", previous_item_id=previous, item_id=item)
        yield self._encode(
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
        yield self._encode(
            f"{TRANSCRIPTION}.completed",
            **self._of_item(),
            transcript=text_of_words(self._words),
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
        self._has_started = False
        self._item_start = start

    @property
    def _item(self) -> str:
        return f"item_{self._items}"

    def _of_item(self) -> dict[str, Any]:
        return {"item_id": self._item, "content_index": 0}

    def _encode(self, kind: str, **fields: Any) -> str:
        self._events += 1
        return json_text({"type": kind, "event_id": f"event_{self._events}", **fields})

    def close_with_error(self, error: Exception) -> CloseInfo:
        _, message = public_error(error)
        if self._dialect is not None:
            text = self._dialect.error(error)
        else:
            text = self._encode("error", error={**access.error_fields(error), "event_id": None})
        return CloseInfo((text,), close_code(error), message)


def _decode(message: str, expected: str) -> dict[str, Any]:
    """Decode an event; a large one must contain audio, and only the fields of audio are decoded."""
    append = decode_json(message, _Append, expected) if len(message) > MOST_COMMAND_BYTES else None
    if append is not None and append.type == "input_audio_buffer.append":
        return {"type": append.type, "audio": append.audio, "event_id": append.event_id}
    check_command_size(message)
    return decode_json(message, dict[str, Any], expected)

"""Deepgram Flux (v2): turns instead of results. Every message and field: `docs/protocols/flux.md`.

The model's pause probability at the 2 s horizon is the confidence that the turn is over. A turn that seems to be over
is flushed before it is told of, so that its last words are in the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.errors import ParameterError, RestartingError, TympanError
from tympan.messages import Audio, AudioFormat, Complete, Event, Finish, Flush, Flushed, Partial, Ready, Vad, Word
from tympan.protocols.base import (
    Acceptance,
    Action,
    Answer,
    CloseInfo,
    Refusal,
    Request,
    ServerInfo,
    WireMessage,
    close_code,
    json_text,
    public_error,
)
from tympan.protocols.deepgram import access as deepgram_access
from tympan.protocols.deepgram.live import parse_audio, parse_command
from tympan.transcript.endpoints import AfterPause, Endpoint, Endpointer

DEFAULT_THRESHOLD, THRESHOLDS = 0.7, (0.5, 1.0)  # P(pause) is never above 1.0: only clients end turns
EAGER_THRESHOLDS = (0.3, 0.9)
DEFAULT_TIMEOUT_MS, TIMEOUTS_MS = 5000, (500, 60_000)


class _Thresholds(msgspec.Struct, frozen=True):
    """What a client may choose, in Deepgram's own names."""

    eot_threshold: float = DEFAULT_THRESHOLD
    eager_eot_threshold: float | None = None
    eot_timeout_ms: int = DEFAULT_TIMEOUT_MS

    def rule(self) -> AfterPause:
        return AfterPause(self.eot_threshold, self.eot_timeout_ms / 1000, self.eager_eot_threshold)

    def check(self) -> None:
        """Raises `ParameterError`."""
        for name, value, (lowest, highest) in (
            ("eot_threshold", self.eot_threshold, THRESHOLDS),
            ("eager_eot_threshold", self.eager_eot_threshold, EAGER_THRESHOLDS),
            ("eot_timeout_ms", self.eot_timeout_ms, TIMEOUTS_MS),
        ):
            if value is not None and not lowest <= value <= highest:
                raise ParameterError(f"{name} must be from {lowest} to {highest}")


class FluxProtocol:
    """One stream of one channel; `TurnInfo` for everything that happens to a turn."""

    name: ClassVar[str] = "flux"
    wants_vad: ClassVar[bool] = True

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._server_info = server_info
        self._thresholds = _Thresholds()
        self._endpointer = Endpointer(None, server_info.pause_horizons)
        self._sequence = 0
        self._turn = 0
        self._turn_start = 0.0
        self._words: list[Word] = []
        self._partial = Partial("", 0.0)  # a turn starts with it: a word that is not over yet may interrupt a bot
        self._heard = 0.0
        self._pause = 0.0
        self._eager = False  # whether the client was told that the turn is perhaps over
        self._flushes: dict[int, Endpoint | None] = {}  # what was decided; None where the client did
        self._markers = 0
        self._finishing = False

    def credential(self) -> str | None:
        return deepgram_access.credential(self._request)

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        return deepgram_access.refusal(self._request, error)

    def accept(self) -> Acceptance:
        return deepgram_access.acceptance(self._request)

    def start(self) -> AudioFormat:
        query = self._request.query
        self._server_info.check_model(query.get("model"))
        chosen = {name: query[name] for name in _Thresholds.__struct_fields__ if query.get(name)}
        try:
            self._configure(msgspec.convert(chosen, _Thresholds, strict=False))
        except msgspec.ValidationError as error:
            raise ParameterError(f"a threshold is wrong: {error}") from None
        audio_format = parse_audio(self._request)
        return AudioFormat(audio_format.encoding, audio_format.sample_rate, audio_format.channels, mixed=True)

    def _configure(self, thresholds: _Thresholds) -> None:
        thresholds.check()
        self._thresholds = thresholds
        self._endpointer.rule = thresholds.rule()

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        if isinstance(message, bytes):
            return (Audio(message),) if message else self._finish()
        command = parse_command(message)
        match command.get("type"):
            case "ForceEndTurn":
                return (self._flush(None),)
            case "Configure":
                return (self._on_configure(command),)
            case "CloseStream":
                return self._finish()
        return ()

    def _finish(self) -> Sequence[Action]:
        self._finishing = True
        return (Finish(),)

    def _flush(self, endpoint: Endpoint | None) -> Flush:
        self._markers += 1
        self._flushes[self._markers] = endpoint
        return Flush(self._markers)

    def _on_configure(self, command: dict[str, Any]) -> str:
        given = command.get("thresholds")
        current = msgspec.to_builtins(self._thresholds)
        keyterms = command.get("keyterms")
        try:
            changes = {name: value for name, value in (given or {}).items() if name in current}
            chosen = {name: value for name, value in {**current, **changes}.items() if value is not None}
            self._configure(msgspec.convert(chosen, _Thresholds, strict=False))
        except (ParameterError, msgspec.ValidationError, AttributeError) as error:
            description = str(error) if isinstance(error, ParameterError) else "thresholds must be an object of numbers"
            return self._tell("ConfigureFailure", code="INVALID_THRESHOLDS", description=description)
        return self._tell(
            "ConfigureSuccess",
            thresholds=msgspec.to_builtins(self._thresholds),
            keyterms=keyterms if isinstance(keyterms, list) else [],
        )

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        if (endpoint := self._endpointer.overtaken(event)) is not None:
            return (self._on_settled(endpoint), *self._on_event(event))
        return self._on_event(event)

    def _on_event(self, event: Event) -> Sequence[Answer]:
        match event:
            case Ready():
                return (self._tell("Connected"),)
            case Partial():
                self._partial = event
            case Word():
                self._words.append(event)
                self._partial = Partial("", event.end)  # what comes after this word is told anew
                self._heard = max(self._heard, event.end)
            case Vad():
                self._heard = max(self._heard, event.time)
                self._pause = event.pauses[self._endpointer.head]
            case Flushed():
                return tuple(self._on_flushed(event.marker))
            case Complete():
                return (self._end_turn("model", self._heard),) if self._endpointer.speaking or self._words else ()
        return tuple(self._on_turn(event))

    def _on_turn(self, event: Event) -> Iterator[WireMessage | Flush]:
        told = False
        for endpoint in self._endpointer.hear(event):
            match endpoint.kind:
                case "started":
                    self._turn_start = endpoint.time
                    yield self._turn_info("StartOfTurn")
                case "resumed":
                    yield self._resume()
                case "paused" | "ended":
                    yield self._flush(endpoint)
            told = True
        if isinstance(event, Word) and not told:
            # A word of the last flush: what was told eagerly is not what the turn will end with.
            yield self._resume() if self._eager else self._turn_info("Update")

    def _resume(self) -> str:
        self._eager = False
        return self._turn_info("TurnResumed")

    def _on_flushed(self, marker: int) -> Iterator[WireMessage]:
        endpoint = self._flushes.pop(marker)
        if endpoint is None:
            yield self._end_turn("manual", self._heard)
        elif self._endpointer.settle(endpoint):  # else the client ended the turn before the model could
            yield self._on_settled(endpoint)

    def _on_settled(self, endpoint: Endpoint) -> str:
        end = endpoint.end_of(self._words)
        if endpoint.kind == "ended":
            return self._end_turn(endpoint.trigger, end)
        self._eager = True
        return self._turn_info("EagerEndOfTurn", end)

    def _end_turn(self, trigger: str, end: float) -> str:
        message = self._turn_info("EndOfTurn", end, trigger=trigger)
        self._endpointer.end()
        self._eager = False
        self._words = []
        self._turn += 1
        self._turn_start = end
        return message

    def _turn_info(self, event: str, end: float | None = None, **more: str) -> str:
        words: list[dict[str, Any]] = [
            {"word": word.text, "confidence": word.confidence, "start": word.start, "end": word.end}
            for word in self._words
        ]
        words += [
            {"word": text, "confidence": 0.0, "start": self._partial.start} for text in self._partial.text.split()
        ]
        return self._tell(
            "TurnInfo",
            event=event,
            turn_index=self._turn,
            audio_window_start=round(self._turn_start, 3),
            audio_window_end=round(max(self._heard if end is None else end, self._turn_start), 3),
            transcript=" ".join(word["word"] for word in words),
            words=words,
            end_of_turn_confidence=round(self._pause, 4),
            **more,
        )

    def _tell(self, kind: str, **fields: Any) -> str:
        """Every message is counted."""
        numbered = {"type": kind, "request_id": self._request.id, "sequence_id": self._sequence, **fields}
        self._sequence += 1
        return json_text(numbered)

    def fail(self, error: Exception | None) -> CloseInfo:
        if error is None or isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), "" if error is None else str(error))
        code, message = public_error(error)
        return CloseInfo((self._tell("Error", code=code.upper(), description=message),), close_code(error), message)

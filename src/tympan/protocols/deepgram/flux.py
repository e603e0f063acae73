"""Deepgram Flux (v2): turns instead of results. Every message and field: `docs/protocols/flux.md`.

The model's pause probability at the 2 s horizon is the confidence that the turn has ended. When a turn seems to have
ended, the protocol requests a flush, and reports the end once the last words have arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from msgspec.structs import asdict, replace

from tympan.errors import ParameterError
from tympan.messages import AudioFormat, Complete, Event, Flush, Flushed, Partial, Ready, Vad, Word
from tympan.protocols.audio_start import AudioStart
from tympan.protocols.base import Action, Answer, CloseInfo, PendingFlushes, Request, ServerInfo, WireMessage
from tympan.protocols.deepgram import messages
from tympan.protocols.deepgram.access import DeepgramAccess
from tympan.protocols.deepgram.parameters import TurnThresholds, parse_audio_format, unsupported_parameters
from tympan.protocols.errors import close_code, public_error
from tympan.protocols.wire import json_text
from tympan.transcript.turns import Endpoint, Endpointer


class FluxProtocol(DeepgramAccess):
    """One stream of one channel. `TurnInfo` messages report everything that happens to a turn."""

    name: ClassVar[str] = "flux"

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        super().__init__(request, server_info)
        self._thresholds = TurnThresholds()
        self._endpointer = Endpointer(None, server_info.pause_horizons)
        self._sequence = 0
        self._turn = 0
        self._turn_start = 0.0
        self._words: list[Word] = []
        self._partial = Partial("", 0.0)  # starts a turn: an incomplete word is enough to interrupt a voice agent
        self._audio_end = 0.0  # of the transcribed audio, in seconds
        self._pause = 0.0
        self._is_eager = False  # whether EagerEndOfTurn is the last event of the turn
        self._audio_start = AudioStart(AudioFormat(), is_declared=True, warn=self._warn)  # until `start`
        self._flushes: PendingFlushes[Endpoint | None] = PendingFlushes()  # None: the client ends the turn

    def start(self) -> AudioFormat:
        query = self._request.query
        self._server_info.check_model(query.get("model"))
        self._set_thresholds(TurnThresholds.parse({name: text for name, text in query.items() if text}))
        self.unsupported.update(dict.fromkeys(unsupported_parameters(query, self._server_info.languages)))
        audio_format = replace(parse_audio_format(query), mixed=True)
        self._audio_start = AudioStart(audio_format, is_declared=True, warn=self._warn)
        return audio_format

    def _set_thresholds(self, thresholds: TurnThresholds) -> None:
        self._thresholds = thresholds
        self._endpointer.rule = thresholds.rule

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        if isinstance(message, bytes):
            return self._audio_start.receive(message) if message else self._finish()
        command = messages.parse_command(message)
        match command.get("type"):
            case "ForceEndTurn":
                return (self._flushes.add(None),)
            case "Configure":
                return (self._on_configure(command),)
            case "CloseStream":
                return self._finish()
        return ()

    def _on_configure(self, command: dict[str, Any]) -> str:
        changes = command.get("thresholds") or {}
        if command.get("keyterms"):
            self.unsupported["keyterms"] = None
        try:
            self._set_thresholds(TurnThresholds.parse({**asdict(self._thresholds), **changes}))
        except (ParameterError, TypeError) as error:
            description = str(error) if isinstance(error, ParameterError) else "thresholds must be an object of numbers"
            return self._encode("ConfigureFailure", code="INVALID_THRESHOLDS", description=description)
        return self._encode("ConfigureSuccess", thresholds=asdict(self._thresholds), keyterms=[])

    def _warn(self, sentence: str) -> str:
        fields = messages.warning(sentence)
        return self._encode(fields.pop("type"), **fields)

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        if (endpoint := self._endpointer.overtaken(event)) is not None:
            return (self._report_end(endpoint), *self._on_event(event))
        return self._on_event(event)

    def _on_event(self, event: Event) -> Sequence[Answer]:
        match event:
            case Ready():
                return (self._encode("Connected"),)
            case Partial():
                self._partial = event
            case Word():
                self._words.append(event)
                self._partial = Partial("", event.end)
                self._audio_end = max(self._audio_end, event.end)
            case Vad():
                self._audio_end = max(self._audio_end, event.time)
                self._pause = event.pauses[self._endpointer.head]
            case Flushed():
                return tuple(self._on_flushed(event.marker))
            case Complete():
                return (self._end_turn("model", self._audio_end),) if self._endpointer.speaking or self._words else ()
        return tuple(self._on_turn(event))

    def _on_turn(self, event: Event) -> Iterator[WireMessage | Flush]:
        has_endpoint = False
        for endpoint in self._endpointer.on_event(event):
            match endpoint.kind:
                case "started":
                    self._turn_start = endpoint.time
                    yield self._turn_info("StartOfTurn")
                case "resumed":
                    yield self._resume()
                case "paused" | "ended":
                    yield self._flushes.add(endpoint)
            has_endpoint = True
        if isinstance(event, Word) and not has_endpoint:
            # A word that a flush has released: EagerEndOfTurn did not contain it.
            yield self._resume() if self._is_eager else self._turn_info("Update")

    def _resume(self) -> str:
        self._is_eager = False
        return self._turn_info("TurnResumed")

    def _on_flushed(self, marker: int) -> Iterator[WireMessage]:
        endpoint = self._flushes.pop(marker)
        if endpoint is None:
            yield self._end_turn("manual", self._audio_end)
        elif self._endpointer.confirm(endpoint):  # otherwise the client has ended the turn before
            yield self._report_end(endpoint)

    def _report_end(self, endpoint: Endpoint) -> str:
        end = endpoint.end_of(self._words)
        if endpoint.kind == "ended":
            return self._end_turn(endpoint.trigger, end)
        self._is_eager = True
        return self._turn_info("EagerEndOfTurn", end)

    def _end_turn(self, trigger: str, end: float) -> str:
        message = self._turn_info("EndOfTurn", end, trigger=trigger)
        self._endpointer.end()
        self._is_eager = False
        self._words = []
        self._turn += 1
        self._turn_start = end
        return message

    def _turn_info(self, event: str, end: float | None = None, **trigger: str) -> str:
        end = self._audio_end if end is None else end
        turn = messages.turn_info(event, self._turn, self._turn_start, end, self._words, self._partial, self._pause)
        return self._encode("TurnInfo", **turn, **trigger)

    def _encode(self, kind: str, **fields: Any) -> str:
        """Return a message with its sequence number."""
        numbered = {"type": kind, "request_id": self._request.id, "sequence_id": self._sequence, **fields}
        self._sequence += 1
        return json_text(numbered)

    def close_with_error(self, error: Exception) -> CloseInfo:
        code, message = public_error(error)
        return CloseInfo((self._encode("Error", code=code.upper(), description=message),), close_code(error), message)

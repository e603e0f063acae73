"""Deepgram's live API (v1): binary audio up, JSON text down. Every message and field: `docs/protocols/deepgram.md`.

A released word never changes, so each interim result extends the previous one and never corrects it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

from tympan.errors import AudioError, IdleError, TympanError
from tympan.messages import AudioFormat, Complete, Event, Flush, Flushed, KeepAlive, Vad, Word
from tympan.protocols.audio_start import AudioStart
from tympan.protocols.base import Action, Answer, CloseInfo, Droppable, PendingFlushes, Request, ServerInfo, WireMessage
from tympan.protocols.deepgram import messages
from tympan.protocols.deepgram.access import DeepgramAccess
from tympan.protocols.deepgram.parameters import LiveParameters, parse_audio_format, unsupported_parameters
from tympan.protocols.errors import close_code, public_error
from tympan.protocols.wire import json_text
from tympan.transcript.turns import Endpoint, Endpointer

MAX_RESULT_SECONDS = 4.0


class ChannelState:
    """One channel since its last final result. Final results cover the time of the channel without gaps.

    Attributes:
        endpointer: Detects the endpoints of the channel.
        words: Words since the last final result.
        start: End of the last final result, in seconds.
        end: End of the transcribed audio, in seconds.
        last_word_end: End of the last word, in seconds, until its `UtteranceEnd` is sent.
    """

    def __init__(self, endpointer: Endpointer) -> None:
        self.endpointer = endpointer
        self.words: list[Word] = []
        self.start = 0.0
        self.end = 0.0
        self.last_word_end: float | None = None

    def add(self, word: Word) -> None:
        self.words.append(word)
        self.last_word_end = word.end
        self.end = max(self.end, word.end)

    def take(self, end: float) -> tuple[list[Word], float, float]:
        """Return the words, start and duration of a final result up to `end`, where the next result starts."""
        words, start = self.words, self.start
        self.words, self.start = [], max(start, end)
        return words, start, self.start - start


class DeepgramProtocol(DeepgramAccess):
    """One stream of one or more channels."""

    name: ClassVar[str] = "deepgram"

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        super().__init__(request, server_info)
        self._parameters = LiveParameters.parse(request.query)
        self._channels: list[ChannelState] = []
        # The endpoint (None: the client's Finalize) and the channel (None: all channels) of each flush.
        self._flushes: PendingFlushes[tuple[Endpoint | None, int | None]] = PendingFlushes()
        self._audio_start = AudioStart(AudioFormat(), is_declared=True, warn=self._warn)  # until `start`
        self._sha256 = hashlib.sha256()
        self._metadata = messages.live_metadata(request, server_info)

    def start(self) -> AudioFormat:
        query, server_info = self._request.query, self._server_info
        server_info.check_model(query.get("model"))
        self.unsupported.update(dict.fromkeys(unsupported_parameters(query, server_info.languages)))
        audio_format = parse_audio_format(query)
        self._audio_start = AudioStart(audio_format, is_declared=True, warn=self._warn)
        self._channels = [
            ChannelState(Endpointer(self._parameters.endpointing, server_info.pause_horizons))
            for _ in range(audio_format.streams)
        ]
        return audio_format

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        if isinstance(message, bytes):
            if not message:
                return self._finish()  # older clients close a stream with an empty frame
            self._sha256.update(message)
            return self._audio_start.receive(message)
        command = messages.parse_command(message)
        match command.get("type"):
            case "KeepAlive":
                return (KeepAlive(),)
            case "Finalize":
                channel = command.get("channel")
                is_known = isinstance(channel, int) and 0 <= channel < len(self._channels)
                return (self._flushes.add((None, channel if is_known else None)),)
            case "CloseStream":
                return self._finish()
            case "Configure":
                if command.get("keyterms"):
                    self.unsupported["keyterms"] = None
                fields = {"type": "ConfigureSuccess", "keyterms": [], "request_id": self._request.id}
                return (json_text(fields),)
        return ()

    def _warn(self, sentence: str) -> str:
        return json_text(messages.warning(sentence))

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        return list(self._answers(event, channel))

    def _answers(self, event: Event, channel: int) -> Iterator[Answer]:
        state = self._channels[channel]
        if (endpoint := state.endpointer.overtaken(event)) is not None:
            yield self._final(channel, endpoint.end_of(state.words), speech_final=True)
        match event:
            case Word():
                yield from self._on_word(event, channel)
            case Flushed():
                yield from self._on_flushed(event.marker)
            case Complete():
                yield from self._on_complete(event)
            case _:
                yield from self._on_endpoints(event, channel)
                if isinstance(event, Vad):
                    yield from self._on_frame(event, channel)

    def _on_word(self, word: Word, channel: int) -> Iterator[Answer]:
        state = self._channels[channel]
        state.add(word)
        yield from self._on_endpoints(word, channel)
        if word.end - state.words[0].start > MAX_RESULT_SECONDS:  # of speech: not counting the silence before it
            yield self._final(channel, word.end)
        elif self._parameters.interim_results:
            yield Droppable(self._results(channel, state.words, state.start, word.end - state.start))

    def _on_endpoints(self, event: Event, channel: int) -> Iterator[WireMessage | Flush]:
        for endpoint in self._channels[channel].endpointer.on_event(event):
            if endpoint.kind == "started" and self._parameters.vad_events:
                yield json_text(messages.speech_started(self._index(channel), endpoint.time))
            elif endpoint.kind == "ended":
                yield self._flushes.add((endpoint, channel))

    def _on_frame(self, vad: Vad, channel: int) -> Iterator[WireMessage]:
        """End an utterance after a gap, measured in audio whose words have been released."""
        state, gap = self._channels[channel], self._parameters.utterance_end_seconds
        state.end = max(state.end, vad.time)
        if gap is None or not self._parameters.interim_results or state.last_word_end is None:
            return
        if vad.time - self._server_info.delay_seconds - state.last_word_end >= gap:
            if state.words:
                yield self._final(channel, state.last_word_end)
            yield json_text(messages.utterance_end(self._index(channel), state.last_word_end))
            state.last_word_end = None

    def _on_flushed(self, marker: int) -> Iterator[WireMessage]:
        endpoint, only = self._flushes.pop(marker)
        for channel, state in enumerate(self._channels):
            if only not in (None, channel):
                continue
            if endpoint is None:
                state.endpointer.end()
                yield self._final(channel, state.end, speech_final=True, from_finalize=True)
            elif state.endpointer.confirm(endpoint):  # otherwise the client's Finalize has ended the result before
                yield self._final(channel, endpoint.end_of(state.words), speech_final=True)

    def _on_complete(self, complete: Complete) -> Iterator[WireMessage]:
        for channel, state in enumerate(self._channels):
            if state.words:
                yield self._final(channel, complete.audio_seconds, speech_final=True)
        digest = self._sha256.hexdigest()
        seconds, channels = complete.audio_seconds, len(self._channels)
        fields = messages.metadata(self._request, seconds, channels, digest, self.unsupported)
        yield json_text({"type": "Metadata", **fields})

    def _final(self, channel: int, end: float, **flags: bool) -> str:
        words, start, duration = self._channels[channel].take(end)
        return self._results(channel, words, start, duration, is_final=True, **flags)

    def _results(self, channel: int, words: Sequence[Word], start: float, duration: float, **flags: bool) -> str:
        return json_text(messages.results(words, start, duration, self._index(channel), self._metadata, **flags))

    def _index(self, channel: int) -> list[int]:
        return [channel, len(self._channels)]

    def close_with_error(self, error: Exception) -> CloseInfo:
        _, message = public_error(error)
        code, reason = close_code(error), message
        if isinstance(error, AudioError):
            code, reason = 1008, f"DATA-0000: {message}"
        elif isinstance(error, IdleError):
            code, reason = 1011, f"NET-0001: {message}"
        variant = type(error).__name__ if isinstance(error, TympanError) else "InternalError"
        fields = {"type": "Error", "variant": variant, "description": message, "message": message}
        return CloseInfo((json_text(fields),), code, reason)

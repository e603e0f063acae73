"""Deepgram's live API (v1): binary audio up, JSON text down. Every message and field: `docs/protocols/deepgram.md`.

A released word never changes, so an interim result only grows, and is never taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.audio.format import parse_format
from tympan.errors import AudioError, FrameError, IdleError, ParameterError, RestartingError, TympanError
from tympan.messages import (
    Audio,
    AudioFormat,
    Complete,
    Event,
    Finish,
    Flush,
    Flushed,
    KeepAlive,
    Vad,
    Word,
)
from tympan.protocols.base import (
    Acceptance,
    Action,
    Answer,
    CloseInfo,
    Droppable,
    Refusal,
    Request,
    ServerInfo,
    WireMessage,
    close_code,
    json_text,
    public_error,
)
from tympan.protocols.deepgram import access as deepgram_access
from tympan.protocols.deepgram.messages import alternative, metadata, model_id, model_info
from tympan.transcript.endpoints import AfterSilence, Endpoint, Endpointer

DEFAULT_ENDPOINTING_MS = 10
LONGEST_RESULT_SECONDS = 4.0
_CODECS_IN_CONTAINERS = {"flac": "auto", "opus": "opus", "ogg-opus": "opus"}
_UNKNOWN_CODECS = ("amr-nb", "amr-wb", "speex", "g729")


class Transcript:
    """One channel's words between two final results, which tile its time without gaps."""

    def __init__(self, endpointer: Endpointer) -> None:
        self.endpointer = endpointer
        self.words: list[Word] = []
        self.start = 0.0
        self.heard = 0.0
        self.last_word_end: float | None = None  # of an utterance whose end has not been told

    def word(self, word: Word) -> None:
        self.words.append(word)
        self.last_word_end = word.end
        self.heard = max(self.heard, word.end)

    def take(self, end: float) -> tuple[list[Word], float, float]:
        """The words up to here with their result's start and duration; the next result starts where this one ends."""
        words, start = self.words, self.start
        self.words, self.start = [], max(start, end)
        return words, start, self.start - start


class DeepgramProtocol:
    """One live stream, of one transcript per channel."""

    name: ClassVar[str] = "deepgram"
    wants_vad: ClassVar[bool] = True

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._server_info = server_info
        self._interim = is_true(request.query.get("interim_results"))
        self._vad_events = is_true(request.query.get("vad_events"))
        self._utterance_end = _milliseconds(request.query.get("utterance_end_ms"), None)
        self._transcripts: list[Transcript] = []
        self._flushes: dict[int, tuple[Endpoint | None, int | None]] = {}  # which endpoint, which channel alone
        self._markers = 0
        self._finishing = False
        self._hash = hashlib.sha256()
        self._about = {
            "request_id": request.id,
            "model_uuid": model_id(server_info),
            "model_info": model_info(server_info),
        }

    def credential(self) -> str | None:
        return deepgram_access.credential(self._request)

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        return deepgram_access.refusal(self._request, error)

    def accept(self) -> Acceptance:
        return deepgram_access.acceptance(self._request)

    def start(self) -> AudioFormat:
        self._server_info.check_model(self._request.query.get("model"))
        audio_format = parse_audio(self._request)
        endpointing = _endpointing(self._request.query.get("endpointing"))
        rule = None if endpointing is None else AfterSilence(endpointing)
        horizons = self._server_info.pause_horizons
        self._transcripts = [Transcript(Endpointer(rule, horizons)) for _ in range(audio_format.streams)]
        return audio_format

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if self._finishing:
            return ()
        if isinstance(message, bytes):
            if not message:
                return self._finish()  # how older clients close a stream
            self._hash.update(message)
            return (Audio(message),)
        frame = parse_command(message)
        match frame.get("type"):
            case "KeepAlive":
                return (KeepAlive(),)
            case "Finalize":
                channel = frame.get("channel")
                known = isinstance(channel, int) and 0 <= channel < len(self._transcripts)
                return (self._flush(None, channel if known else None),)
            case "CloseStream":
                return self._finish()
            case "Configure":
                return (self._encode({"type": "ConfigureSuccess", "keyterms": frame.get("keyterms") or []}),)
        return ()

    def _finish(self) -> Sequence[Action]:
        self._finishing = True
        return (Finish(),)

    def _flush(self, endpoint: Endpoint | None, channel: int | None) -> Flush:
        """For an endpoint, or for the client's Finalize."""
        self._markers += 1
        self._flushes[self._markers] = (endpoint, channel)
        return Flush(self._markers)

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        actions: list[Answer] = list(self._on_overtaken(event, channel))
        match event:
            case Word():
                return [*actions, *self._on_word(event, channel)]
            case Flushed():
                return list(self._on_flushed(event.marker))
            case Complete():
                return list(self._on_complete(event))
        actions += self._on_endpoints(event, channel)
        if isinstance(event, Vad):
            actions += self._on_frame(event, channel)
        return actions

    def _on_word(self, word: Word, channel: int) -> Iterator[Answer]:
        transcript = self._transcripts[channel]
        transcript.word(word)
        yield from self._on_endpoints(word, channel)
        if word.end - transcript.words[0].start > LONGEST_RESULT_SECONDS:  # of speech: silence before it does not count
            yield self._final(channel, word.end)
        elif self._interim:
            yield Droppable(self._results(channel, transcript.words, transcript.start, word.end - transcript.start))

    def _on_overtaken(self, event: Event, channel: int) -> Iterator[WireMessage]:
        transcript = self._transcripts[channel]
        if (endpoint := transcript.endpointer.overtaken(event)) is not None:
            yield self._final(channel, endpoint.end_of(transcript.words), speech_final=True)

    def _on_endpoints(self, event: Event, channel: int) -> Iterator[WireMessage | Flush]:
        for endpoint in self._transcripts[channel].endpointer.hear(event):
            if endpoint.kind == "started" and self._vad_events:
                timestamp = round(endpoint.time, 3)
                yield self._encode({"type": "SpeechStarted", "channel": self._index(channel), "timestamp": timestamp})
            elif endpoint.kind == "ended":
                yield self._flush(endpoint, channel)

    def _on_frame(self, vad: Vad, channel: int) -> Iterator[WireMessage | Flush]:
        """The gap that ends an utterance is measured in what must have been released by now."""
        transcript = self._transcripts[channel]
        transcript.heard = max(transcript.heard, vad.time)
        if self._utterance_end is None or not self._interim or transcript.last_word_end is None:
            return
        if vad.time - self._server_info.delay_seconds - transcript.last_word_end >= self._utterance_end:
            if transcript.words:
                yield self._final(channel, transcript.last_word_end)
            last = round(transcript.last_word_end, 3)
            transcript.last_word_end = None
            yield self._encode({"type": "UtteranceEnd", "channel": self._index(channel), "last_word_end": last})

    def _on_flushed(self, marker: int) -> Iterator[WireMessage]:
        endpoint, only = self._flushes.pop(marker)
        for channel, transcript in enumerate(self._transcripts):
            if only not in (None, channel):
                continue
            if endpoint is None:
                transcript.endpointer.end()
                yield self._final(channel, transcript.heard, speech_final=True, from_finalize=True)
            elif transcript.endpointer.settle(endpoint):  # else the client finalized before its words were there
                yield self._final(channel, endpoint.end_of(transcript.words), speech_final=True)

    def _on_complete(self, complete: Complete) -> Iterator[WireMessage]:
        for channel, transcript in enumerate(self._transcripts):
            if transcript.words:
                yield self._final(channel, complete.audio_seconds, speech_final=True)
        fields = metadata(self._request, complete.audio_seconds, len(self._transcripts), self._hash.hexdigest())
        yield self._encode({"type": "Metadata", **fields})

    def _final(self, channel: int, end: float, *, speech_final: bool = False, from_finalize: bool = False) -> str:
        words, start, duration = self._transcripts[channel].take(end)
        return self._results(
            channel, words, start, duration, is_final=True, speech_final=speech_final, from_finalize=from_finalize
        )

    def _results(self, channel: int, words: Sequence[Word], start: float, duration: float, **flags: bool) -> str:
        fields = {
            "type": "Results",
            "channel_index": self._index(channel),
            "start": round(start, 3),
            "duration": round(duration, 3),
            **{"is_final": False, "speech_final": False, "from_finalize": False, **flags},
            "channel": {"alternatives": [alternative(words)]},
            "metadata": self._about,
        }
        return self._encode(fields)

    def _index(self, channel: int) -> list[int]:
        return [channel, len(self._transcripts)]

    def _encode(self, fields: dict[str, Any]) -> str:
        if fields["type"].startswith("Configure"):
            fields["request_id"] = self._request.id
        return json_text(fields)

    def fail(self, error: Exception | None) -> CloseInfo:
        if error is None or isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), "" if error is None else str(error))
        _, message = public_error(error)
        code, reason = close_code(error), message
        if isinstance(error, AudioError):
            code, reason = 1008, f"DATA-0000: {message}"
        elif isinstance(error, IdleError):
            code, reason = 1011, f"NET-0001: {message}"
        variant = type(error).__name__ if isinstance(error, TympanError) else "InternalError"
        told = {"type": "Error", "variant": variant, "description": message, "message": message}
        return CloseInfo((self._encode(told),), code, reason)


def parse_audio(request: Request) -> AudioFormat:
    """The format that a live stream's or a file's query declares. Raises `ParameterError`."""
    query = request.query
    encoding, channels = query.get("encoding"), query.get("channels")
    multichannel = is_true(query.get("multichannel"))
    if not encoding:
        declared = parse_format("auto", None, channels)
    elif encoding.lower() in _CODECS_IN_CONTAINERS:
        declared = parse_format(_CODECS_IN_CONTAINERS[encoding.lower()], None, channels)
    elif encoding.lower() in _UNKNOWN_CODECS:
        raise ParameterError(f"encoding={encoding} is not decoded; use linear16, linear32, mulaw, alaw, opus, flac")
    elif query.get("sample_rate") is None:
        raise ParameterError("encoding needs sample_rate beside it")
    else:
        declared = parse_format(encoding, query["sample_rate"], channels)
    return AudioFormat(declared.encoding, declared.sample_rate, declared.channels, mixed=not multichannel)


def parse_command(message: str) -> dict[str, Any]:
    """A text frame of Deepgram's clients: an object with a `type`. Raises `FrameError`."""
    try:
        frame = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        frame = None
    if not isinstance(frame, dict):
        raise FrameError('audio is sent in binary frames; a text frame is a command such as {"type": "KeepAlive"}')
    return frame


def is_true(text: str | None) -> bool:
    """A switch in a query string, as Deepgram's clients write it."""
    return (text or "").lower() in ("true", "1", "yes")


def _endpointing(text: str | None) -> float | None:
    """Seconds, or `None` for never."""
    if (text or "").lower() in ("false", "0"):
        return None
    return _milliseconds(text, DEFAULT_ENDPOINTING_MS / 1000)


def _milliseconds(text: str | None, default: float | None) -> float | None:
    """Seconds; what is no number is as good as not said."""
    return int(text) / 1000 if text and text.isascii() and text.isdigit() and len(text) < 9 else default

"""vLLM's dialect of OpenAI's realtime API, on the same path: 16 kHz audio up, deltas and one `done` down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from tympan.errors import AudioError, FrameError
from tympan.messages import AudioFormat, Event, Flush, Flushed, SetFormat, Vad, Word
from tympan.protocols.audio_start import AudioStart
from tympan.protocols.base import Action, ServerInfo, WireMessage
from tympan.protocols.errors import public_error
from tympan.protocols.wire import base64_audio, json_text
from tympan.transcript.joining import text_after, text_of_words

FORMAT = AudioFormat("s16le", 16_000)


class VllmDialect:
    """The dialect's part of a connection.

    The first commit starts the transcription of an utterance, the final commit ends it. Another utterance may follow.
    """

    def __init__(self, server_info: ServerInfo) -> None:
        self._server_info = server_info
        self._started = False
        self._words: list[Word] = []
        self._sent_words = 0
        self._frames = 0
        self._markers = count(1)
        self._audio_start = AudioStart(FORMAT, is_declared=False, warn=_error)

    def receive(self, fields: dict[str, Any]) -> Sequence[Action]:
        """Return the commands and the answers to a client's message."""
        match fields.get("type"):
            case "session.update":
                self._server_info.check_model(str(fields.get("model") or ""))
                return (SetFormat(FORMAT),)
            case "input_audio_buffer.append":
                return self._append(fields.get("audio"))
            case "input_audio_buffer.commit" if fields.get("final"):
                return (*self._deltas(), Flush(next(self._markers)))
            case "input_audio_buffer.commit":
                return self._deltas()
        return ()

    def _append(self, audio: object) -> Sequence[Action]:
        try:
            return self._audio_start.receive(base64_audio(audio))
        except AudioError as error:
            return (_error(str(error)),)

    def send(self, event: Event) -> Sequence[WireMessage]:
        """Return the messages that report an event."""
        match event:
            case Word():
                self._words.append(event)
                return self._deltas() if self._started else ()
            case Vad():
                self._frames += 1
            case Flushed():
                return (self._done(),)
        return ()

    def _deltas(self) -> Sequence[str]:
        """Return the words that have not been sent, one message each. Called from the first commit on."""
        self._started = True
        first, self._sent_words = self._sent_words, len(self._words)
        words = enumerate(self._words[first:], start=first)
        deltas = [text_after(number > 0, word) for number, word in words]
        return [json_text({"type": "transcription.delta", "delta": delta}) for delta in deltas]

    def _done(self) -> str:
        text, frames, words = text_of_words(self._words), self._frames, len(self._words)
        self._started = False
        self._words, self._sent_words, self._frames = [], 0, 0
        usage = {"prompt_tokens": frames, "completion_tokens": words, "total_tokens": frames + words}
        return json_text({"type": "transcription.done", "text": text, "usage": usage})

    def error(self, error: Exception) -> str:
        """Return the message of an error."""
        _, message = public_error(error)
        code = "processing_error"
        if isinstance(error, FrameError):
            code = "invalid_event"
        elif isinstance(error, AudioError):
            code = "invalid_audio"
        return _error(message, code)


def _error(message: str, code: str = "invalid_audio") -> str:
    return json_text({"type": "error", "error": message, "code": code})

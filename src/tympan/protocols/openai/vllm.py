"""vLLM's realtime dialect, on OpenAI's path: a few messages of 16 kHz audio up, deltas and one `done` down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tympan.errors import AudioError, FrameError
from tympan.messages import Audio, AudioFormat, Event, Flush, Flushed, SetFormat, Vad, Word
from tympan.protocols.base import Action, ServerInfo, WireMessage, base64_audio, json_text, public_error

FORMAT = AudioFormat("s16le", 16_000)


class VllmDialect:
    """A first commit starts the transcription, a final one ends it; the next utterance may follow."""

    def __init__(self, server_info: ServerInfo) -> None:
        self._server_info = server_info
        self._started = False
        self._words: list[Word] = []
        self._told = 0
        self._frames = 0
        self._markers = 0

    def receive(self, frame: dict[str, Any]) -> Sequence[Action]:
        match frame.get("type"):
            case "session.update":
                self._server_info.check_model(str(frame.get("model") or ""))
                return (SetFormat(FORMAT),)
            case "input_audio_buffer.append":
                return (Audio(base64_audio(frame.get("audio"))),)
            case "input_audio_buffer.commit" if frame.get("final"):
                self._markers += 1
                return (*self._deltas(), Flush(self._markers))
            case "input_audio_buffer.commit":
                return self._deltas()
        return ()

    def send(self, event: Event) -> Sequence[WireMessage]:
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
        """What has been heard and not told; from the first commit on."""
        self._started = True
        new = self._words[self._told :]
        deltas = [f" {word.text}" if number else word.text for number, word in enumerate(new, start=self._told)]
        self._told = len(self._words)
        return [json_text({"type": "transcription.delta", "delta": delta}) for delta in deltas]

    def _done(self) -> str:
        text, frames, words = " ".join(word.text for word in self._words), self._frames, len(self._words)
        self._started = False
        self._words, self._told, self._frames = [], 0, 0
        usage = {"prompt_tokens": frames, "completion_tokens": words, "total_tokens": frames + words}
        return json_text({"type": "transcription.done", "text": text, "usage": usage})

    def error(self, error: Exception) -> str:
        _, message = public_error(error)
        code = "processing_error"
        if isinstance(error, FrameError):
            code = "invalid_event"
        elif isinstance(error, AudioError):
            code = "invalid_audio"
        return json_text({"type": "error", "error": message, "code": code})

"""Parsers of what a server sends in each protocol: words, answers to flushes, lag, errors. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

Message = str | bytes
Reader = Callable[[bytes], None]
"""Parses one message and calls a `Listener`. Raises `msgspec.DecodeError` for a message that the protocol excludes."""


class Listener(Protocol):
    """Callbacks of a reader."""

    def on_word(self, text: str) -> None:
        """Handle a final word."""

    def on_flushed(self) -> None:
        """Handle the answer to the oldest pending flush."""

    def on_lag(self, seconds: float) -> None:
        """Handle the seconds of audio that the server has received and not transcribed."""

    def on_error(self, message: str) -> None:
        """Handle an error message; the server closes the connection after it."""

    def reply(self, message: Message) -> None:
        """Send a message that the protocol requires."""


class _Fields(msgspec.Struct):
    """All fields that any protocol's reader uses; nested values are converted where they are needed."""

    type: str
    text: str = ""
    delta: str = ""
    message: str = ""
    behind: float = 0.0
    error: Any = None
    step_idx: int = 0
    buffered_pcm: int = 0
    channel: Any = None
    is_final: bool = False
    from_finalize: bool = False
    description: str = ""
    event: str = ""
    words: Any = None
    trigger: str = ""


_json = msgspec.json.Decoder(_Fields)
_msgpack = msgspec.msgpack.Decoder(_Fields)


def typed_reader(word: str) -> Callable[[Listener], Reader]:
    """Return a reader for protocols whose messages are typed ``word``, ``lag``, ``flushed`` and ``error``.

    Args:
        word: The type of the messages that contain a word.
    """

    def reader(listener: Listener) -> Reader:
        def read(message: bytes) -> None:
            received = _json.decode(message)
            if received.type == word:
                listener.on_word(received.text)
            elif received.type == "lag":
                listener.on_lag(received.behind)
            elif received.type == "flushed":
                listener.on_flushed()
            elif received.type == "error":
                listener.on_error(received.message)

        return read

    return reader


def openai_reader(listener: Listener) -> Reader:
    item = "conversation.item.input_audio_transcription"

    def read(message: bytes) -> None:
        received = _json.decode(message)
        if received.type == f"{item}.delta":
            listener.on_word(received.delta.strip())
        elif received.type == f"{item}.completed":
            listener.on_flushed()
        elif received.type == "error":
            listener.on_error(str(received.error))

    return read


VLLM_START: Final = '{"type": "input_audio_buffer.commit"}'


def vllm_reader(listener: Listener) -> Reader:
    """Return a reader that starts the next utterance after each ``done``; without it the server holds words back."""

    def read(message: bytes) -> None:
        received = _json.decode(message)
        match received.type:
            case "transcription.delta":
                for text in received.delta.split():
                    listener.on_word(text)
            case "transcription.done":
                listener.on_flushed()
                listener.reply(VLLM_START)
            case "error":
                listener.on_error(str(received.error))

    return read


def kyutai_reader(listener: Listener) -> Reader:
    def read(message: bytes) -> None:
        received = _msgpack.decode(message)
        match received.type:
            case "Step" if received.step_idx % 12 == 0:  # about once a second, as in the other protocols
                listener.on_lag(received.buffered_pcm / 24_000)
            case "Word":
                listener.on_word(received.text)
            case "Marker":
                listener.on_flushed()
            case "Error":
                listener.on_error(received.message)

    return read


def _report_new(listener: Listener, words: list[str], reported: int) -> int:
    """Report the words after the first ``reported``; return how many are reported now."""
    for text in words[reported:]:
        listener.on_word(text)
    return max(reported, len(words))


class _Alternative(msgspec.Struct):
    transcript: str


class _DeepgramChannel(msgspec.Struct):
    alternatives: list[_Alternative]


def deepgram_reader(listener: Listener) -> Reader:
    """Return a reader of interim results, each of which holds all words since the last final one."""
    reported = 0

    def read(message: bytes) -> None:
        nonlocal reported
        received = _json.decode(message)
        if received.type == "Results":
            channel = msgspec.convert(received.channel, _DeepgramChannel)
            words = channel.alternatives[0].transcript.split()
            reported = _report_new(listener, words, reported)
            reported = 0 if received.is_final else reported
            if received.from_finalize:
                listener.on_flushed()
        elif received.type == "Error":
            listener.on_error(received.description)

    return read


class _FluxWord(msgspec.Struct):
    word: str
    end: float | None = None


def flux_reader(listener: Listener) -> Reader:
    """Return a reader of turns: every message holds all words of the turn, and words without an end are not final."""
    reported = 0

    def read(message: bytes) -> None:
        nonlocal reported
        received = _json.decode(message)
        if received.type == "TurnInfo":
            turn = msgspec.convert(received.words or [], list[_FluxWord])
            reported = _report_new(listener, [word.word for word in turn if word.end is not None], reported)
            if received.event == "EndOfTurn":
                reported = 0
                if received.trigger == "manual":
                    listener.on_flushed()
        elif received.type == "Error":
            listener.on_error(received.description)

    return read

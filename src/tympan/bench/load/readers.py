"""What a server's message says to a client of each protocol: words, answers to flushes, lag, errors. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

Message = str | bytes


class Ear(Protocol):
    """Who hears what a server says."""

    def word(self, text: str) -> None:
        """A word was released, and will not change."""

    def flushed(self) -> None:
        """The oldest flush that waits is done."""

    def behind(self, seconds: float) -> None:
        """How much audio the server has received and not transcribed."""

    def failed(self, message: str) -> None:
        """The server said what went wrong; the socket closes after it."""

    def reply(self, message: Message) -> None:
        """The client owes an answer."""


Reader = Callable[[bytes], None]
"""Reads one message. Raises `msgspec.DecodeError` for what the protocol does not promise."""


class _Json(msgspec.Struct):
    """The fields that any of the word by word protocols has for us."""

    type: str = ""
    text: str = ""
    delta: str = ""
    message: str = ""
    behind: float = 0.0
    error: Any = None


_json = msgspec.json.Decoder(_Json)


def typed_reader(word: str) -> Callable[[Ear], Reader]:
    """For the protocols in which a message of the type `word` is a word, `flushed` answers, and `error` is last."""

    def reader(ear: Ear) -> Reader:
        def read(message: bytes) -> None:
            said = _json.decode(message)
            if said.type == word:
                ear.word(said.text)
            elif said.type == "lag":
                ear.behind(said.behind)
            elif said.type == "flushed":
                ear.flushed()
            elif said.type == "error":
                ear.failed(said.message)

        return read

    return reader


def openai_reader(ear: Ear) -> Reader:
    item = "conversation.item.input_audio_transcription"

    def read(message: bytes) -> None:
        said = _json.decode(message)
        if said.type == f"{item}.delta":
            ear.word(said.delta.strip())
        elif said.type == f"{item}.completed":
            ear.flushed()
        elif said.type == "error":
            ear.failed(str(said.error))

    return read


VLLM_START: Final = '{"type": "input_audio_buffer.commit"}'


def vllm_reader(ear: Ear) -> Reader:
    """After each `done` the next utterance has to be started, or its words wait."""

    def read(message: bytes) -> None:
        said = _json.decode(message)
        match said.type:
            case "transcription.delta":
                for text in said.delta.split():
                    ear.word(text)
            case "transcription.done":
                ear.flushed()
                ear.reply(VLLM_START)
            case "error":
                ear.failed(str(said.error))

    return read


class _Packed(msgspec.Struct):
    type: str
    text: str = ""
    message: str = ""
    step_idx: int = 0
    buffered_pcm: int = 0


_packed = msgspec.msgpack.Decoder(_Packed)


def kyutai_reader(ear: Ear) -> Reader:
    def read(message: bytes) -> None:
        said = _packed.decode(message)
        match said.type:
            case "Step" if said.step_idx % 12 == 0:  # about once a second, as others tell it
                ear.behind(said.buffered_pcm / 24_000)
            case "Word":
                ear.word(said.text)
            case "Marker":
                ear.flushed()
            case "Error":
                ear.failed(said.message)

    return read


def _tell_new(ear: Ear, words: list[str], known: int) -> int:
    """Of words that are told again and again, those beyond the first `known`; returns how many are known now."""
    for text in words[known:]:
        ear.word(text)
    return max(known, len(words))


class _Alternative(msgspec.Struct):
    transcript: str


class _DeepgramChannel(msgspec.Struct):
    alternatives: list[_Alternative]


class _Deepgram(msgspec.Struct):
    type: str
    channel: Any = None
    is_final: bool = False
    from_finalize: bool = False
    description: str = ""


_deepgram = msgspec.json.Decoder(_Deepgram)


def deepgram_reader(ear: Ear) -> Reader:
    """An interim result holds all words since the last final one."""
    known = 0

    def read(message: bytes) -> None:
        nonlocal known
        said = _deepgram.decode(message)
        if said.type == "Results":
            channel = msgspec.convert(said.channel, _DeepgramChannel)
            words = channel.alternatives[0].transcript.split()
            known = _tell_new(ear, words, known)
            known = 0 if said.is_final else known
            if said.from_finalize:
                ear.flushed()
        elif said.type == "Error":
            ear.failed(said.description)

    return read


class _FluxWord(msgspec.Struct):
    word: str
    end: float | None = None


class _Flux(msgspec.Struct):
    type: str
    event: str = ""
    words: list[_FluxWord] = []
    trigger: str = ""
    description: str = ""


_flux = msgspec.json.Decoder(_Flux)


def flux_reader(ear: Ear) -> Reader:
    """Every message holds all words of the turn; one without an end is not released yet."""
    known = 0

    def read(message: bytes) -> None:
        nonlocal known
        said = _flux.decode(message)
        if said.type == "TurnInfo":
            words = [word.word for word in said.words if word.end is not None]
            known = _tell_new(ear, words, known)
            if said.event == "EndOfTurn":
                known = 0
                if said.trigger == "manual":
                    ear.flushed()
        elif said.type == "Error":
            ear.failed(said.description)

    return read

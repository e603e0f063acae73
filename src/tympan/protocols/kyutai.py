"""The protocol of Kyutai's moshi-server: MessagePack maps both ways. Every message: `docs/protocols/kyutai.md`.

Kyutai's clients accept a closed set of message types and count each `Step` as 80 ms of audio, so no other messages are
sent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.errors import AccessError, CapacityError, FrameError, RestartingError, TympanError
from tympan.messages import Audio, AudioFormat, Complete, Event, Flushed, Lag, Ready, Reset, SetFormat, Vad, Word
from tympan.protocols.audio_start import AudioStart
from tympan.protocols.base import (
    Action,
    Answer,
    CloseInfo,
    Droppable,
    PendingFlushes,
    Refusal,
    Request,
    ServerInfo,
    ServerProtocol,
    WireMessage,
)
from tympan.protocols.errors import close_code, public_error
from tympan.protocols.msgpack_audio import decode_bytes, decode_samples
from tympan.protocols.wire import json_refusal

KEY_HEADER = "kyutai-api-key"
SAMPLE_RATE = 24_000
FLOATS = AudioFormat("f32le", SAMPLE_RATE)
OGG_OPUS = AudioFormat("opus", SAMPLE_RATE)

READY = msgspec.msgpack.encode({"type": "Ready"})
NO_FREE_CHANNELS = "no free channels"
PAUSES = 4
_STEP_PAUSES = struct.Struct(">" + "Bf" * PAUSES)
_SINGLE_FLOAT = 0xCA


class _Message(msgspec.Struct):
    """A client's message. The fields stay packed until the type says which of them matter."""

    type: str
    pcm: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.msgpack.Decoder(_Message)


class KyutaiProtocol(ServerProtocol):
    """One stream. The words of a frame are sent after its `Step`."""

    name: ClassVar[str] = "kyutai"
    idle_factor: ClassVar[float] = 2.0  # moshi-server waits for 120 s, and its clients rely on it

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        super().__init__(request, server_info)
        self._has_steps = bool(server_info.pause_horizons)
        self._format = FLOATS
        self._pending_words: list[bytes] = []
        self._markers: PendingFlushes[int] = PendingFlushes()  # Kyutai's ids, which may repeat
        self._reset()

    def _reset(self) -> None:
        self._steps = 0
        self._received_samples = 0
        self._has_audio = False
        self._audio_start = AudioStart(FLOATS, is_declared=True, warn=_warning)

    def credential(self) -> str | None:
        return self._request.headers.get(KEY_HEADER, self._request.query.get("auth_id"))

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        if isinstance(error, (AccessError, RestartingError)):
            return json_refusal(error, error_fields(error))
        return self.close_with_error(error)

    def start(self) -> AudioFormat:
        return self._format

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if isinstance(message, str):
            return ()
        fields = _decode(message)
        match fields.type:
            case "Audio":
                samples = decode_samples(fields.pcm)
                self._received_samples += len(samples) // 4
                return self._on_audio(FLOATS, samples)
            case "OggOpus":
                return self._on_audio(OGG_OPUS, decode_bytes(fields.data))
            case "Marker":
                id = _marker_id(fields.id)
                return (self._markers.add(id) if self._has_audio else _marker(id),)
            case "Init":
                # The audio before the pending markers is discarded, so they are answered at once.
                markers = [_marker(id) for id in self._markers.values()]
                self._markers.clear()
                self._reset()
                return *markers, Reset(), READY
        raise FrameError(f"unknown message type {fields.type[:40]!r}; the types are Audio, OggOpus, Marker and Init")

    def _on_audio(self, audio_format: AudioFormat, data: bytes) -> Sequence[Action]:
        self._has_audio = True
        actions = self._audio_start.receive(data) if audio_format == FLOATS else (Audio(data),)
        if audio_format == self._format:
            return actions
        self._format = audio_format
        return SetFormat(audio_format), *actions

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        match event:
            case Ready():
                return (READY,)
            case Word():
                self._pending_words += [msgspec.msgpack.encode(fields) for fields in word_fields(event)]
                return () if self._has_steps else self._take_words()
            case Vad():
                step = _pack_step(self._steps, event.pauses, max(0, self._received_samples - _samples(event.time)))
                self._steps += 1
                return Droppable(step), *self._take_words()
            case Lag():
                # Only the session, which decodes Opus, can tell how much audio it contains.
                self._received_samples = max(self._received_samples, _samples(event.received))
            case Flushed():
                words = self._take_words()
                return [*words, _marker(self._markers.pop(event.marker))] if event.marker in self._markers else words
            case Complete():
                return self._take_words()
        return ()

    def _take_words(self) -> list[bytes]:
        words, self._pending_words = self._pending_words, []
        return words

    def close_with_error(self, error: Exception) -> CloseInfo:
        code, _ = public_error(error)
        return CloseInfo((msgspec.msgpack.encode(error_fields(error)),), close_code(error), code)


def word_fields(word: Word) -> Sequence[dict[str, Any]]:
    """Return the fields of the two messages of a word."""
    return (
        {"type": "Word", "text": word.text, "start_time": word.start},
        {"type": "EndWord", "stop_time": word.end},
    )


def error_fields(error: Exception) -> Mapping[str, str]:
    """Return the fields of an error message. At capacity, the text is that of moshi-server."""
    message = NO_FREE_CHANNELS if isinstance(error, CapacityError) else public_error(error)[1]
    return {"type": "Error", "message": message}


def _warning(sentence: str) -> bytes:
    """Return an `Error`, because the clients know no other message; the stream continues."""
    return msgspec.msgpack.encode({"type": "Error", "message": sentence})


def _decode(message: bytes) -> _Message:
    try:
        return _decoder.decode(message)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so are those of text that is not UTF-8
        raise FrameError('a binary frame must be a MessagePack map such as {"type": "Audio", "pcm": […]}') from None


def _marker_id(value: msgspec.Raw) -> int:
    try:
        id = msgspec.msgpack.decode(value, type=int)
    except msgspec.DecodeError:
        id = None
    if id is None or id >= 1 << 63:
        raise FrameError("the id of a Marker must be a 64-bit signed integer")
    return id


def _marker(id: int) -> bytes:
    return msgspec.msgpack.encode({"type": "Marker", "id": id})


def _pack_step(step_idx: int, pauses: tuple[float, ...], buffered_pcm: int) -> bytes:
    """Encode a `Step` by hand: its pauses are 32-bit floats, and msgspec only writes 64-bit ones."""
    filled = (pauses + pauses[-1:] * PAUSES)[:PAUSES]
    prs = _STEP_PAUSES.pack(*(part for pause in filled for part in (_SINGLE_FLOAT, pause)))
    encode = msgspec.msgpack.encode
    head = b"\x84\xa4type\xa4Step\xa8step_idx" + encode(step_idx)
    return head + b"\xa3prs" + bytes((0x90 | PAUSES,)) + prs + b"\xacbuffered_pcm" + encode(buffered_pcm)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)

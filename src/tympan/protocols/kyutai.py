"""The protocol of Kyutai's moshi-server: MessagePack maps both ways. Every message: `docs/protocols/kyutai.md`.

Its clients know a closed set of message types and take one `Step` for 80 ms of audio, so that is what they get, and
nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from tympan.errors import AccessError, CapacityError, FrameError, RestartingError, TympanError
from tympan.messages import (
    Audio,
    AudioFormat,
    Complete,
    Event,
    Flush,
    Flushed,
    Lag,
    Ready,
    Reset,
    SetFormat,
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
    json_refusal,
    public_error,
)
from tympan.protocols.msgpack_audio import float_samples, octets

KEY_HEADER = "kyutai-api-key"
SAMPLE_RATE = 24_000
FLOATS = AudioFormat("f32le", SAMPLE_RATE)
OGG_OPUS = AudioFormat("opus", SAMPLE_RATE)

READY = msgspec.msgpack.encode({"type": "Ready"})
NO_FREE_CHANNELS = "no free channels"
PAUSES = 4
_STEP_PAUSES = struct.Struct(">" + "Bf" * PAUSES)
_SINGLE_FLOAT = 0xCA


class _Frame(msgspec.Struct):
    """A client's message. The fields stay packed until the type says which ones matter."""

    type: str
    pcm: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


_frames = msgspec.msgpack.Decoder(_Frame)


class KyutaiProtocol:
    """Words of a frame are held back for its `Step`, which comes first on this wire."""

    name: ClassVar[str] = "kyutai"
    wants_vad: ClassVar[bool] = True

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        self._request = request
        self._has_steps = bool(server_info.pause_horizons)
        self._format = FLOATS
        self._held: list[bytes] = []
        self._markers: dict[int, int] = {}
        self._flushes = 0
        self._forget()

    def _forget(self) -> None:
        self._steps = 0
        self._received_samples = 0
        self._heard = False

    def credential(self) -> str | None:
        return self._request.headers.get(KEY_HEADER, self._request.query.get("auth_id"))

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        if isinstance(error, AccessError):
            return json_refusal(error, error_fields(error))
        return self._close_info(error)

    def accept(self) -> Acceptance:
        return Acceptance()

    def start(self) -> AudioFormat:
        return self._format

    def receive(self, message: WireMessage) -> Sequence[Action]:
        if isinstance(message, str):
            return ()
        frame = _parse(message)
        match frame.type:
            case "Audio":
                samples = float_samples(frame.pcm)
                self._received_samples += len(samples) // 4
                return self._hear(FLOATS, samples)
            case "OggOpus":
                return self._hear(OGG_OPUS, octets(frame.data))
            case "Marker":
                return self._mark(_marker_id(frame.id))
            case "Init":
                return self._start_again()
        raise FrameError(f"unknown message type {frame.type[:40]!r}; the types are Audio, OggOpus, Marker and Init")

    def _hear(self, audio_format: AudioFormat, data: bytes) -> Sequence[Action]:
        self._heard = True
        if audio_format == self._format:
            return (Audio(data),)
        self._format = audio_format
        return SetFormat(audio_format), Audio(data)

    def _mark(self, id: int) -> Sequence[Action]:
        if not self._heard:
            return (_marker(id),)
        self._flushes += 1
        self._markers[self._flushes] = id  # ids may repeat
        return (Flush(self._flushes),)

    def _start_again(self) -> Sequence[Action]:
        """The audio before markers that wait is forgotten: they are answered now, or never."""
        answers = [_marker(id) for id in self._markers.values()]
        self._markers.clear()
        self._forget()
        return *answers, Reset(), READY

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        match event:
            case Ready():
                return (READY,)
            case Word():
                self._held += [msgspec.msgpack.encode(fields) for fields in word_fields(event)]
                return () if self._has_steps else self._take_held()
            case Vad():
                return Droppable(self._step(event)), *self._take_held()
            case Lag():
                # Of Opus only the session knows how much audio it was.
                self._received_samples = max(self._received_samples, _samples(event.received))
            case Flushed():
                held = self._take_held()
                return [*held, _marker(self._markers.pop(event.marker))] if event.marker in self._markers else held
            case Complete():
                return self._take_held()
        return ()

    def _step(self, vad: Vad) -> bytes:
        step_idx = self._steps
        self._steps += 1
        return _pack_step(step_idx, vad.pauses, max(0, self._received_samples - _samples(vad.time)))

    def _take_held(self) -> list[bytes]:
        held, self._held = self._held, []
        return held

    def fail(self, error: Exception | None) -> CloseInfo:
        if error is None or isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), "" if error is None else str(error))
        return self._close_info(error)

    def _close_info(self, error: Exception) -> CloseInfo:
        code, _ = public_error(error)
        return CloseInfo((msgspec.msgpack.encode(error_fields(error)),), close_code(error), code)


def word_fields(word: Word) -> Sequence[dict[str, Any]]:
    """The two messages of a word, for the socket and for the answer to a file."""
    return (
        {"type": "Word", "text": word.text, "start_time": word.start},
        {"type": "EndWord", "stop_time": word.end},
    )


def error_fields(error: Exception) -> Mapping[str, str]:
    """The message of an error. When the server is full, the words are those that the original uses."""
    message = NO_FREE_CHANNELS if isinstance(error, CapacityError) else public_error(error)[1]
    return {"type": "Error", "message": message}


def _parse(message: bytes) -> _Frame:
    try:
        return _frames.decode(message)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors, and so is text that is not UTF-8
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
    """By hand: the pauses are single floats on this wire, and msgspec writes double ones."""
    filled = (pauses + pauses[-1:] * PAUSES)[:PAUSES]
    prs = _STEP_PAUSES.pack(*(part for pause in filled for part in (_SINGLE_FLOAT, pause)))
    encode = msgspec.msgpack.encode
    head = b"\x84\xa4type\xa4Step\xa8step_idx" + encode(step_idx)
    return head + b"\xa3prs" + bytes((0x90 | PAUSES,)) + prs + b"\xacbuffered_pcm" + encode(buffered_pcm)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)

"""The messages between a server, or each of its front processes, and its engine processes, on Unix sockets.

To the engine: items, each a little-endian header (stream u32, kind u8, three bytes of padding, length u32) and its
payload. All items of one iteration of the server's event loop are one write. From the engine: length u32, then a
message in MessagePack; the events of all streams in one step are one message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import astuple

from tympan import errors
from tympan.engine.base import EngineInfo, StepReport
from tympan.errors import EngineError, TympanError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Partial, Pcm, Progress, Warning, Word

ITEM: Final = struct.Struct("<IBxxxI")
LENGTH: Final = struct.Struct("<I")


class Kind(IntEnum):
    """What the payload of an item is."""

    OPEN = 0  # one byte: whether the stream is live
    INTEGERS = 1  # a frame, int16
    FLOATS = 2  # a frame, float32
    PARTIAL_INTEGERS = 3  # the partial frame of the flush that follows
    PARTIAL_FLOATS = 4
    FLUSH = 5  # its number, u64
    FINISH = 6
    CLOSE = 7


# Integers: the members of an enumeration take several times as long for each frame.
_INTEGERS: Final = int(Kind.INTEGERS)
_FLOATS: Final = int(Kind.FLOATS)
_PARTIAL_INTEGERS: Final = int(Kind.PARTIAL_INTEGERS)
_PARTIAL_FLOATS: Final = int(Kind.PARTIAL_FLOATS)


class Starting(Struct, tag=True, array_like=True):
    """The engine is starting, or the process is alive; sent about twice a second."""

    stage: str


class Started(Struct, tag=True, array_like=True):
    """The engine can take streams."""

    info: EngineInfo
    capacity: int
    start_seconds: dict[str, float]
    others: int = 0  # streams of other servers


class StartFailed(Struct, tag=True, array_like=True):
    """The engine cannot be started; the process ends."""

    code: str
    message: str


class Refused(Struct, tag=True, array_like=True):
    """A stream could not be opened."""

    stream: int


class Others(Struct, tag=True, array_like=True):
    """How many streams the engine has of other servers; sent when it changes."""

    streams: int


class Step(Struct, tag=True, array_like=True):
    """The events of one step, by stream: one `Progress`, as of nearly all streams, or for each its kind and fields."""

    events: list[tuple[int, Progress | list[list[Any]]]]
    report: StepReport | None = None


Message = Starting | Started | StartFailed | Refused | Others | Step
_decoder = msgspec.msgpack.Decoder(Message)
_encode = msgspec.msgpack.Encoder().encode

_EVENTS: Final = (Progress, Word, Partial, Warning, Flushed, Finished)
_KINDS: Final = {event: kind for kind, event in enumerate(_EVENTS)}
_FAILED: Final = len(_EVENTS)


def item(stream: int, kind: Kind, payload: bytes = b"") -> bytes:
    """Return the bytes of one item."""
    return ITEM.pack(stream, kind, len(payload)) + payload


def frame_item(stream: int, frame: Pcm, *, partial: bool = False) -> tuple[bytes, memoryview]:
    """Return the header and the samples of a contiguous frame, which `bytes.join` takes without another copy."""
    if partial:
        kind = _PARTIAL_INTEGERS if frame.dtype == np.int16 else _PARTIAL_FLOATS
    else:
        kind = _INTEGERS if frame.dtype == np.int16 else _FLOATS
    return ITEM.pack(stream, kind, frame.nbytes), frame.data


def frame_of(kind: int, payload: bytes | memoryview) -> Pcm:
    """Return the samples of a frame's payload."""
    is_integer = kind in (_INTEGERS, _PARTIAL_INTEGERS)
    return np.frombuffer(payload, np.int16) if is_integer else np.frombuffer(payload, np.float32)


def pack_message(message: Message) -> bytes:
    """Return the bytes of one message."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body


def pack_event(event: EngineEvent) -> list[Any]:
    """Return the fields of an event, after its kind."""
    if isinstance(event, Failed):
        code = event.error.code if isinstance(event.error, TympanError) else EngineError.code
        return [_FAILED, code, str(event.error)]
    return [_KINDS[type(event)], *astuple(event)]


def pack_events(events: Sequence[EngineEvent]) -> Progress | list[list[Any]]:
    """Return the events of one stream as `Step` has them."""
    if len(events) == 1 and isinstance(events[0], Progress):
        return events[0]  # encoded and decoded by msgspec, without a Python object for each field
    return [pack_event(event) for event in events]


def unpack_event(fields: Sequence[Any]) -> EngineEvent:
    """Return the event of its fields."""
    kind = fields[0]
    if kind == 0:
        return Progress(fields[1], tuple(fields[2]), fields[3])
    if kind == _FAILED:
        return Failed(error_of(*fields[1:]))
    event: EngineEvent = _EVENTS[kind](*fields[1:])
    return event


def error_of(code: str, message: str) -> TympanError:
    """Return the error with this code."""
    kinds = (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TympanError))
    kind = next((each for each in kinds if each.code == code and each is not errors.ServerError), EngineError)
    return kind(message)


class Items:
    """Takes the bytes of a stream of items apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, memoryview]]:
        """Yield the stream, kind and payload of every complete item."""
        for (stream, kind, _), payload in _take(self._buffer, data, ITEM):
            yield stream, kind, payload


class Messages:
    """Takes the bytes of a stream of messages apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield every complete message."""
        for _, body in _take(self._buffer, data, LENGTH):
            yield _decoder.decode(body)


def _take(buffer: bytearray, data: bytes, head: struct.Struct) -> Iterator[tuple[tuple[int, ...], memoryview]]:
    """Yield the fields of every complete header, whose last one is the length of the payload, and the payload."""
    whole = memoryview(bytes(buffer) + data if buffer else data)
    buffer.clear()
    start, size, length = 0, head.size, len(whole)
    while length - start >= size:
        fields = head.unpack_from(whole, start)
        body = start + size
        end = body + fields[-1]
        if end > length:
            break
        start = end
        yield fields, whole[body:end]
    buffer += whole[start:]

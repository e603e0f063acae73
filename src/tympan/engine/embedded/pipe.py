"""Messages between the parent and a worker process: pickled objects, each preceded by its length."""

from __future__ import annotations

import pickle
import struct
from asyncio import StreamReader
from dataclasses import dataclass
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Reset:
    """Prepare the slot for a new stream."""

    slot: int


@dataclass(frozen=True, slots=True)
class Push:
    """Recognize one frame of 16-bit samples; a partial frame is not counted in the stream's clock."""

    slot: int
    pcm: bytes
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Flush:
    """Release all words of the slot."""

    slot: int


Request = Reset | Push | Flush


def pack(item: object) -> bytes:
    """Return the bytes of one message."""
    body = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def write_item(pipe: BinaryIO, item: object) -> None:
    """Write one message."""
    pipe.write(pack(item))
    pipe.flush()


def read_item(pipe: BinaryIO) -> Any:
    """Return the next object, or None at the end of the pipe."""
    head = pipe.read(_LENGTH.size)
    return pickle.loads(pipe.read(_LENGTH.unpack(head)[0])) if len(head) == _LENGTH.size else None


async def read_item_async(pipe: StreamReader) -> Any:
    """Return the next object; raise `asyncio.IncompleteReadError` at the end of the pipe."""
    head = await pipe.readexactly(_LENGTH.size)
    return pickle.loads(await pipe.readexactly(_LENGTH.unpack(head)[0]))

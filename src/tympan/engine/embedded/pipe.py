"""Messages between the parent and a worker process: pickled objects, each preceded by its length."""

from __future__ import annotations

import pickle
import struct
from asyncio import StreamReader
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Request:
    """Call of one method of a slot's `Recognizer`.

    Attributes:
        pcm: Argument of `push` and `push_partial`.
        waiting: Number of requests of the stream behind this one; argument of `push`.
    """

    slot: int
    method: Literal["reset", "push", "push_partial", "flush"]
    pcm: bytes = b""
    waiting: int = 0


def pack(item: object) -> bytes:
    """Return the bytes of one message."""
    body = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def read_item(pipe: BinaryIO) -> Any:
    """Return the next object, or None at the end of the pipe."""
    head = pipe.read(_LENGTH.size)
    return pickle.loads(pipe.read(_LENGTH.unpack(head)[0])) if len(head) == _LENGTH.size else None


async def read_item_async(pipe: StreamReader) -> Any:
    """Return the next object; raise `asyncio.IncompleteReadError` at the end of the pipe."""
    head = await pipe.readexactly(_LENGTH.size)
    return pickle.loads(await pipe.readexactly(_LENGTH.unpack(head)[0]))

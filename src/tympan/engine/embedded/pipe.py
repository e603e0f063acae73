"""What parent and worker say to each other: pickled objects, each after its length. Only our own processes hold these
pipes.
"""

from __future__ import annotations

import pickle
import struct
from asyncio import StreamReader
from dataclasses import dataclass
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Reset:
    """Make the slot as new."""

    slot: int


@dataclass(frozen=True, slots=True)
class Hear:
    """One frame for the slot, 16-bit samples; not `counted`: beside the clock, for the flush that follows."""

    slot: int
    pcm: bytes
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Flush:
    """Release all that the slot has heard."""

    slot: int


Question = Reset | Hear | Flush


def pack(item: object) -> bytes:
    body = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def write_frame(pipe: BinaryIO, item: object) -> None:
    pipe.write(pack(item))
    pipe.flush()


def read_frame(pipe: BinaryIO) -> Any:
    """The next object, or `None` where the pipe ends."""
    head = pipe.read(_LENGTH.size)
    return pickle.loads(pipe.read(_LENGTH.unpack(head)[0])) if len(head) == _LENGTH.size else None


async def read_frame_async(pipe: StreamReader) -> Any:
    """The next object. Raises `asyncio.IncompleteReadError` where the pipe ends."""
    head = await pipe.readexactly(_LENGTH.size)
    return pickle.loads(await pipe.readexactly(_LENGTH.unpack(head)[0]))

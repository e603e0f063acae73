"""Messages as Kyutai's example clients write and read them, without the `msgpack` package."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, TypeAdapter


def audio(samples: Sequence[float] | npt.NDArray[np.floating], tag: int = 0xCA) -> bytes:
    """Return an Audio message with 32-bit floats, as the clients send them, or 64-bit floats (0xCB)."""
    return message(type="Audio", pcm=float_array(samples, tag))


def float_array(samples: Sequence[float] | npt.NDArray[np.floating], tag: int = 0xCA) -> msgspec.Raw:
    values = np.asarray(samples)
    items = np.empty(len(values), [("tag", "u1"), ("value", ">f4" if tag == 0xCA else ">f8")])
    items["tag"], items["value"] = tag, values
    return msgspec.Raw(array_header(len(values)) + items.tobytes())


def array_header(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + struct.pack(">H", count) if count < 1 << 16 else b"\xdd" + struct.pack(">I", count)


def message(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


def decode(packed: str | bytes) -> dict[str, Any]:
    """Decode a message of the server, which must be a binary frame."""
    assert isinstance(packed, bytes)
    fields: dict[str, Any] = msgspec.msgpack.decode(packed)
    return fields


class WordMessage(BaseModel):
    type: Literal["Word"]
    text: str
    start_time: float


class EndWordMessage(BaseModel):
    type: Literal["EndWord"]
    stop_time: float


class MarkerMessage(BaseModel):
    type: Literal["Marker"]
    id: int


class StepMessage(BaseModel):
    type: Literal["Step"]
    step_idx: int
    prs: list[float]


class ErrorMessage(BaseModel):
    type: Literal["Error"]
    message: str


class ReadyMessage(BaseModel):
    type: Literal["Ready"]


closed_union: TypeAdapter[Any] = TypeAdapter(
    WordMessage | EndWordMessage | MarkerMessage | StepMessage | ErrorMessage | ReadyMessage
)
"""The messages that unmute accepts; the validation of any other message raises an error."""

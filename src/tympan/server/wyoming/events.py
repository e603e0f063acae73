"""Wyoming events on the wire: a line of JSON, then the data and the payload of which it declares the lengths.

The events themselves are those of the package `wyoming`. Its reader accepts any declared length and treats an invalid
event as the end of the connection, so this module reads with limits and reports what was wrong.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from wyoming.event import Event

from tympan.errors import FrameError, TooBigError
from tympan.protocols.wire import MOST_COMMAND_BYTES, decode_json

LINE_BYTES: Final = MOST_COMMAND_BYTES
EXPECTED: Final = 'an event must be a line of JSON such as {"type": "audio-start", "data": {…}}, with data as an object'


class _Header(msgspec.Struct):
    type: str
    data: dict[str, Any] | None = None
    data_length: int | None = None
    payload_length: int | None = None


async def read_event(reader: asyncio.StreamReader, most_bytes: int) -> Event | None:
    """Return the next event, or `None` at the end of the connection.

    Args:
        reader: A reader whose limit is `LINE_BYTES`.
        most_bytes: Largest payload.

    Raises:
        FrameError: The bytes are not an event.
        TooBigError: The line, the data or the payload is too big.
    """
    try:
        line = await reader.readline()
        if not line:
            return None
        header = decode_json(line, _Header, EXPECTED)
        data = header.data or {}
        if size := _length("data_length", header.data_length, MOST_COMMAND_BYTES):
            data |= decode_json(await reader.readexactly(size), dict[str, Any], EXPECTED)
        size = _length("payload_length", header.payload_length, most_bytes)
        return Event(header.type, data, await reader.readexactly(size) if size else None)
    except (asyncio.IncompleteReadError, OSError):
        return None  # the connection was lost within an event
    except ValueError:  # of `readline`, for a line above the limit
        raise TooBigError(
            f"a line has more than {LINE_BYTES} bytes: send audio as the payload of audio-chunk"
        ) from None


def pack_event(event: Event) -> bytes:
    """Return the bytes of an event without a payload. All of its data is in the line, which every reader accepts."""
    return msgspec.json.encode({"type": event.type, "data": event.data}) + b"\n"


def _length(name: str, value: int | None, most: int) -> int:
    value = value or 0
    if value < 0:
        raise FrameError(f"invalid {name} {value}: expected 0 or more")
    if value > most:
        raise TooBigError(f"invalid {name} {value}: the limit is {most} bytes")
    return value

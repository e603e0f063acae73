"""Decoding of audio in MessagePack values, without a Python object per sample.

Clients send samples as an array of floats, each preceded by a tag byte. Such an array can be viewed as a NumPy array of
(tag, value) records. `msgspec.Raw` has already found the end of the value and checked that it is well formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from tympan.errors import FrameError, TooBigError

# By the first byte of a value: how many bytes precede its content.
_ARRAY_HEADERS: Mapping[int, int] = {**{0x90 | count: 1 for count in range(16)}, 0xDC: 3, 0xDD: 5}
_BIN_HEADERS: Mapping[int, int] = {0xC4: 2, 0xC5: 3, 0xC6: 5}

MOST_OBJECTS: Final = 1 << 16

_FLOATS = ((0xCA, np.dtype([("tag", "u1"), ("value", ">f4")])), (0xCB, np.dtype([("tag", "u1"), ("value", ">f8")])))


def decode_samples(value: msgspec.Raw) -> bytes:
    """Return the `f32le` samples of an array of numbers, or the content of a `bin`.

    Raises:
        FrameError: The value is neither.
        TooBigError: An array has too many numbers of different sizes.
    """
    if (content := _bin_content(value)) is not None:
        return content
    packed = memoryview(value)
    header = _ARRAY_HEADERS.get(packed[0]) if packed else None
    if header is None:
        raise FrameError("pcm must be an array of numbers")
    items = packed[header:]
    for tag, record in _FLOATS:
        if len(items) % record.itemsize == 0:
            records = np.frombuffer(items, record)
            # If every tag is where it would be, then so is every item: each one starts where the previous one ends.
            if (records["tag"] == tag).all():
                return _f32le(records["value"])
    integers = np.frombuffer(items, np.int8)
    if (integers >= -32).all():  # the integers from -32 to 127 are encoded as themselves
        return _f32le(integers)
    _check_count(packed)
    try:  # slower: other integers, or numbers of several sizes in one array
        return _f32le(np.array(msgspec.msgpack.decode(value, type=list[float]), np.float64))
    except msgspec.DecodeError:
        raise FrameError("pcm must be an array of numbers") from None


def decode_bytes(value: msgspec.Raw) -> bytes:
    """Return the content of a `bin`, or of an array of integers from 0 to 255.

    Raises:
        FrameError: The value is neither.
    """
    if (content := _bin_content(value)) is not None:
        return content
    _check_count(memoryview(value))
    try:
        return bytes(msgspec.msgpack.decode(value, type=list[int]))
    except ValueError:  # msgspec's errors are ValueErrors, too
        raise FrameError("data must be bytes, or an array of integers from 0 to 255") from None


def _check_count(packed: memoryview) -> None:
    """Limit the numbers of an array that is decoded to a Python object each."""
    header = _ARRAY_HEADERS.get(packed[0], 1) if packed else 1
    if int.from_bytes(packed[1:header], "big") > MOST_OBJECTS:
        raise TooBigError(
            f"an array of more than {MOST_OBJECTS} numbers must be sent as bin, or as floats of one size; or send less "
            "audio at a time"
        )


def _bin_content(value: msgspec.Raw) -> bytes | None:
    packed = memoryview(value)
    header = _BIN_HEADERS.get(packed[0]) if packed else None
    return None if header is None else bytes(packed[header:])


def _f32le(samples: npt.NDArray[np.floating | np.integer]) -> bytes:
    with np.errstate(over="ignore", invalid="ignore"):  # the audio decoder handles infinities
        return samples.astype("<f4").tobytes()

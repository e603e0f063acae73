"""Audio out of MessagePack values, without a Python object per sample.

Clients send samples as an array of floats, each with a tag byte of its own. Seen as records of tag and value, such an
array is one numpy view. `msgspec.Raw` has found where the value ends, and that it is well formed.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from tympan.errors import FrameError

# By the first byte of a value: how many bytes stand before its content.
_ARRAY_HEADERS: Mapping[int, int] = {**{0x90 | count: 1 for count in range(16)}, 0xDC: 3, 0xDD: 5}
_BIN_HEADERS: Mapping[int, int] = {0xC4: 2, 0xC5: 3, 0xC6: 5}

_FLOATS = ((0xCA, np.dtype([("tag", "u1"), ("value", ">f4")])), (0xCB, np.dtype([("tag", "u1"), ("value", ">f8")])))


def float_samples(value: msgspec.Raw) -> bytes:
    """`f32le` samples of an array of numbers, or what a `bin` holds. Raises `FrameError`."""
    packed = memoryview(value)
    first = packed[0] if packed else 0
    if first in _BIN_HEADERS:
        return bytes(packed[_BIN_HEADERS[first] :])
    if first not in _ARRAY_HEADERS:
        raise FrameError("pcm must be an array of numbers")
    items = packed[_ARRAY_HEADERS[first] :]
    for tag, record in _FLOATS:
        if len(items) % record.itemsize == 0:
            records = np.frombuffer(items, record)
            # If all tags are where they would be, then so are the items: each ends where the next one begins.
            if (records["tag"] == tag).all():
                return _f32le(records["value"])
    return _f32le(_numbers(value))


def _numbers(value: msgspec.Raw) -> npt.NDArray[np.float64]:
    """The slow way, for integers and for floats of both sizes in one array."""
    try:
        return np.array(msgspec.msgpack.decode(value, type=list[float]), np.float64)
    except msgspec.DecodeError:
        raise FrameError("pcm must be an array of numbers") from None


def _f32le(samples: npt.NDArray[np.floating]) -> bytes:
    with np.errstate(over="ignore", invalid="ignore"):  # the decoder looks after infinities
        return samples.astype("<f4").tobytes()


def octets(value: msgspec.Raw) -> bytes:
    """What a `bin` holds, or the bytes of an array of integers from 0 to 255. Raises `FrameError`."""
    packed = memoryview(value)
    first = packed[0] if packed else 0
    if first in _BIN_HEADERS:
        return bytes(packed[_BIN_HEADERS[first] :])
    try:
        return bytes(msgspec.msgpack.decode(value, type=list[int]))
    except ValueError:  # msgspec's errors are such, too
        raise FrameError("data must be bytes, or an array of integers from 0 to 255") from None

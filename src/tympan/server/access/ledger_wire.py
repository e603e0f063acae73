"""The messages between front processes and the ledger, in MessagePack after their length."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from tympan.config import KeySettings
from tympan.errors import QuotaError

SIZE_BYTES: Final = 4  # of the length, little-endian


class Serving(Struct, tag=True, array_like=True):
    """The front accepts clients."""

    front: int


class Open(Struct, tag=True, array_like=True):
    """Reserve streams of a key; the answer is a `Refusal` or nothing."""

    key: str
    limits: KeySettings
    streams: int


class Close(Struct, tag=True, array_like=True):
    """Release streams of a key."""

    key: str
    streams: int


class KeyUse(Struct, array_like=True):
    """What a front has received of one key since its last report."""

    key: str
    limits: KeySettings
    audio_seconds: float
    file_bytes: int


class Report(Struct, tag=True, array_like=True):
    """What a front has received, once a second; the answer are the keys that have reached a limit."""

    keys: list[KeyUse]


class Take(Struct, tag=True, array_like=True):
    """Add to a count; the answer is None, or the amount in use."""

    name: str
    amount: int
    most: int


class Give(Struct, tag=True, array_like=True):
    """Subtract from a count."""

    name: str
    amount: int


class Refusal(Struct, array_like=True):
    """A `QuotaError`."""

    message: str
    retry_seconds: int

    @classmethod
    def of(cls, error: QuotaError | None) -> Refusal | None:
        """Return the message for an error."""
        return None if error is None else cls(str(error), error.retry_after_seconds)

    @property
    def error(self) -> QuotaError:
        """The error."""
        return QuotaError(self.message, self.retry_seconds)


class Exhausted(Struct, array_like=True):
    """The limits that a key has reached."""

    key: str
    audio: Refusal | None
    files: Refusal | None


Request = Serving | Open | Close | Report | Take | Give
_encode: Final = msgspec.msgpack.Encoder().encode


def pack(message: object) -> bytes:
    """Return the bytes of a message."""
    body = _encode(message)
    return len(body).to_bytes(SIZE_BYTES, "little") + body

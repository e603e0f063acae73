"""What every wire protocol is: bytes in, Commands out; Events in, bytes out. It owns no socket, no task, no clock.

A protocol object serves one connection. The server calls `start` once, then `receive` for every message and `send`
for every event; `fail` gives the last words and the close code for whatever ended the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tympan.audio.format import AudioFormat
from tympan.errors import (
    AccessError,
    AudioError,
    CapacityError,
    FrameError,
    LimitError,
    ParameterError,
    RestartingError,
    SlowReaderError,
    TooBigError,
    TympanError,
)
from tympan.messages import Command, Event

WireMessage = str | bytes


@dataclass(frozen=True, slots=True)
class Request:
    """How a client opened its connection. Header names are in lower case; of a repeated query parameter the last one
    counts.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def bearer(self) -> str | None:
        """The key of an `Authorization: Bearer KEY` header."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None


@dataclass(frozen=True, slots=True)
class Farewell:
    """Last words, then a WebSocket close frame."""

    messages: Sequence[WireMessage]
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer in place of the upgrade."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class ServerProtocol(Protocol):
    """One connection's side of a wire protocol."""

    def credential(self) -> str | None:
        """The API key that the client presented, wherever this protocol carries it."""

    def refuse(self, error: TympanError) -> Refusal:
        """The answer before the upgrade to a client that is not let in."""

    def start(self) -> AudioFormat:
        """Read the opening request. Raises `ParameterError`."""

    def receive(self, message: WireMessage) -> Sequence[Command]:
        """What one message asks for. Raises `RequestError`."""

    def send(self, event: Event, channel: int) -> Sequence[WireMessage]:
        """The messages that tell the client of an event on one of its channels; none if it did not ask for such."""

    def fail(self, error: Exception | None) -> Farewell:
        """How the connection ends; `None` is a good end."""


CLOSE_CODES: Mapping[type[TympanError], int] = {
    FrameError: 1003,
    AudioError: 1007,
    ParameterError: 1008,
    AccessError: 1008,
    LimitError: 1008,
    TooBigError: 1009,
    RestartingError: 1012,
    SlowReaderError: 1013,
    CapacityError: 1013,
}
"""WebSocket close codes by error, nearest class first. What is not listed is our fault: 1011."""

STATUSES: Mapping[type[TympanError], int] = {
    AccessError: 401,
    ParameterError: 400,
    CapacityError: 503,
    RestartingError: 503,
}
"""HTTP statuses by error, for refusals before the upgrade. What is not listed is 500."""


def close_code(error: Exception | None) -> int:
    """The WebSocket close code for the way a session ended."""
    return 1000 if error is None else _nearest(CLOSE_CODES, error, 1011)


def http_status(error: Exception) -> int:
    """The HTTP status for an error before the upgrade."""
    return _nearest(STATUSES, error, 500)


def public_error(error: Exception) -> tuple[str, str]:
    """The code and the sentence that a peer may see. Errors that are not the peer's business reveal nothing."""
    if isinstance(error, TympanError) and _nearest(CLOSE_CODES, error, 1011) != 1011:
        return error.code, str(error)
    return "internal", "internal error"


def _nearest(table: Mapping[type[TympanError], int], error: Exception, default: int) -> int:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)

"""What every wire protocol is: messages and Events in, Commands and messages out. It owns no socket, no task, no clock.

A protocol object serves one connection. The server calls `start` once, then `receive` for every message and `send`
for every event; `fail` gives the last words and the close code for whatever ended the session.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from tympan.errors import (
    AccessError,
    AudioError,
    CapacityError,
    FrameError,
    IdleError,
    LimitError,
    OriginError,
    ParameterError,
    QuotaError,
    RequestError,
    RestartingError,
    SessionTooLongError,
    SlowReaderError,
    TooBigError,
    TympanError,
)
from tympan.messages import AudioFormat, Command, Event, Flush

LONGEST_CLOSE_REASON = 123  # bytes

WireMessage = str | bytes


@dataclass(frozen=True, slots=True)
class Droppable:
    """A message that the next one of its kind makes up for: a client that reads slowly does without it."""

    message: WireMessage


Action = Command | WireMessage
"""What a message makes a protocol want: a message goes to the client, a command to the session, in this order."""
Answer = WireMessage | Droppable | Flush
"""What an event makes it want. A `Flush` asks for the words that a pause or a turn's end calls for."""


@dataclass(frozen=True, slots=True)
class Request:
    """How a client opened its connection. Header names are in lower case; of a repeated query parameter the last one
    counts. `id` is the session's, a UUID; `opened_at` is in seconds since 1970.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    id: str = ""
    opened_at: float = 0.0

    @property
    def bearer(self) -> str | None:
        """The key of an `Authorization: Bearer KEY` header."""
        return self.authorization("bearer")

    def authorization(self, *schemes: str) -> str | None:
        """The key of an `Authorization` header of one of these schemes (in lower case)."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() in schemes else None

    @property
    def subprotocols(self) -> Sequence[str]:
        """What the client offers in `Sec-WebSocket-Protocol`; browsers, which cannot set headers, put keys there."""
        return [name.strip() for name in self.headers.get("sec-websocket-protocol", "").split(",") if name.strip()]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What this server has, for greetings and for clients that name a model."""

    model: str
    engine: str
    sample_rate: int
    frame_samples: int
    delay_seconds: float
    pause_horizons: tuple[float, ...]
    languages: tuple[str, ...]
    session_seconds: float = 7200.0
    strict_model: bool = False

    @property
    def delay_frames(self) -> int:
        return int(self.delay_seconds * self.sample_rate / self.frame_samples)

    def check_model(self, name: str | None) -> None:
        """Any name will do, unless the operator wants the right one. Raises `ParameterError`."""
        if self.strict_model and name not in (None, "", self.model):
            raise ParameterError(f"the model {name!r:.80} is not served here; this server has {self.model}")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What the answer to the upgrade carries."""

    subprotocol: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """Last words, then a WebSocket close frame."""

    messages: Sequence[WireMessage]
    code: int
    reason: str

    @property
    def close_reason(self) -> str:
        """As much of the reason as a close frame holds (RFC 6455 §5.5)."""
        return self.reason.encode()[:LONGEST_CLOSE_REASON].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer in place of the upgrade."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class ServerProtocol(Protocol):
    """One connection's side of a wire protocol; made from the opening request and what the server has to offer."""

    name: ClassVar[str]
    """For metrics and logs."""

    @property
    def wants_vad(self) -> bool:
        """After `start`: whether `send` has a use for `Vad`, which comes with every frame."""

    def credential(self) -> str | None:
        """The API key that the client presented, wherever this protocol carries it."""

    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        """The answer to a client that is not let in: in place of the upgrade, or after it."""

    def accept(self) -> Acceptance:
        """The answer to a client that is."""

    def start(self) -> AudioFormat:
        """Read the opening request. Raises `ParameterError`."""

    def receive(self, message: WireMessage) -> Sequence[Action]:
        """What one message asks for, and the answers that need nobody else. Raises `RequestError`."""

    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        """What tells the client of an event on one of its channels; nothing if it did not ask for such."""

    def fail(self, error: Exception | None) -> CloseInfo:
        """How the connection ends; `None` is a good end."""


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """A client that lost its connection: the token of its stream, and how many messages that matter it has got."""

    token: str
    received: int


@runtime_checkable
class ResumableProtocol(ServerProtocol, Protocol):
    """A protocol whose clients can go on with their stream on another connection."""

    def resume_request(self) -> ResumeRequest | None:
        """What a client that was here before says of itself. Raises `ParameterError`."""

    def wants_token(self) -> bool:
        """Whether the client asks for a way back; after `start`."""

    def give_token(self, token: str) -> None:
        """To be told to the client."""

    def resumed(self) -> WireMessage:
        """The first message on the new connection: how much of what the client sent has come."""


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
    OriginError: 403,
    AccessError: 401,
    RequestError: 400,
    TooBigError: 413,
    IdleError: 408,
    SessionTooLongError: 413,
    QuotaError: 429,
    CapacityError: 503,
    RestartingError: 503,
}
"""HTTP statuses by error, for refusals before the upgrade. What is not listed is 500."""


def json_text(fields: Mapping[str, Any]) -> str:
    """A message of the protocols that speak JSON in text frames. Raises `FrameError` where what a client sent, and is
    shown, is nested so deeply that it could just be read.
    """
    try:
        return msgspec.json.encode(fields).decode()
    except RecursionError:
        raise FrameError("the message is nested too deeply") from None


def base64_audio(text: object) -> bytes:
    """Audio that travels inside JSON. Raises `AudioError`."""
    if isinstance(text, str):
        with suppress(ValueError):  # binascii's own error is one
            return binascii.a2b_base64(text, strict_mode=True)
    raise AudioError("the audio must be a string of base64")


def close_code(error: Exception | None) -> int:
    """The WebSocket close code for the way a session ended."""
    return 1000 if error is None else _nearest(CLOSE_CODES, error, 1011)


def http_status(error: Exception) -> int:
    """The HTTP status for an error before the upgrade."""
    return _nearest(STATUSES, error, 500)


def json_refusal(
    error: TympanError, body: object, headers: Mapping[str, str] | None = None, status: int | None = None
) -> Refusal:
    """A refusal with a JSON body, the error's status unless another is given, and when to try again."""
    retry = {}
    if isinstance(error, CapacityError | QuotaError):
        retry["retry-after"] = str(error.retry_after_seconds)
    elif isinstance(error, RestartingError):
        retry["retry-after"] = "1"
    fields = {"content-type": "application/json", **retry, **(headers or {})}
    return Refusal(status or http_status(error), msgspec.json.encode(body), fields)


def public_error(error: Exception) -> tuple[str, str]:
    """The code and the sentence that a peer may see. Errors that are not the peer's business reveal nothing."""
    if isinstance(error, TympanError) and _nearest(CLOSE_CODES, error, 1011) != 1011:
        return error.code, str(error)
    return "internal", "internal error"


def _nearest(table: Mapping[type[TympanError], int], error: Exception, default: int) -> int:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)

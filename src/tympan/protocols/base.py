"""The interface of a wire protocol: messages and events in, commands and messages out.

A protocol object serves one connection. It owns no socket, no task and no clock. To add a protocol, subclass
`ServerProtocol` and list the class in `server/app.py`. The server calls its methods in this order:

1. `credential` and `start`, then `accept`; or `refuse` if the client is not admitted.
2. `receive` for every message of the client and `send` for every event of the session, in any order.
3. `fail` once, when the session has ended, for the last messages and the close code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from tympan.errors import ParameterError, RestartingError, TympanError
from tympan.messages import AudioFormat, Command, Event, Finish, Flush
from tympan.protocols.errors import close_code

MAX_CLOSE_REASON_BYTES = 123  # RFC 6455 §5.5

Purpose = TypeVar("Purpose")

WireMessage = str | bytes
"""A WebSocket message: `str` for a text frame, `bytes` for a binary frame."""


@dataclass(frozen=True, slots=True)
class Droppable:
    """A message that may be dropped when the client reads slowly, because the next one of its kind replaces it."""

    message: WireMessage


Action = Command | WireMessage
"""A result of `ServerProtocol.receive`: a command for the session or a message to the client."""
Answer = WireMessage | Droppable | Flush
"""A result of `ServerProtocol.send`: a message to the client, or a `Flush` for the session."""


@dataclass(frozen=True, slots=True)
class Request:
    """The HTTP request that opens a connection.

    Attributes:
        path: Path of the URL.
        query: Query parameters; the last value of a repeated parameter.
        headers: Headers, with names in lower case.
        id: UUID of the session.
        opened_at: Time of the request, in seconds since 1970.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    id: str = ""
    opened_at: float = 0.0

    def authorization(self, *schemes: str) -> str | None:
        """Return the key of the `Authorization` header if its scheme is one of these (in lower case)."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() in schemes else None

    @property
    def subprotocols(self) -> Sequence[str]:
        """The values of `Sec-WebSocket-Protocol`. Browsers cannot set headers and send API keys there."""
        return [name.strip() for name in self.headers.get("sec-websocket-protocol", "").split(",") if name.strip()]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Properties of the server and its model that protocols report to clients.

    Attributes:
        model: Name of the model.
        engine: Name of the engine.
        sample_rate: Sample rate of the model, in Hz.
        frame_samples: Samples per frame of the model.
        delay_seconds: Delay between a word and its transcription, in seconds of audio.
        pause_horizons: Horizon of each pause probability in `Vad.pauses`, in seconds.
        languages: Language codes of the model.
        session_seconds: Maximum duration of a session, in seconds.
        strict_model: Whether `check_model` rejects names of other models.
    """

    model: str
    engine: str
    sample_rate: int
    frame_samples: int
    delay_seconds: float
    pause_horizons: tuple[float, ...]
    languages: tuple[str, ...]
    session_seconds: float = 7200.0
    strict_model: bool = False

    def check_model(self, name: str | None) -> None:
        """Check the model that a client requests; every name is accepted unless `strict_model` is set.

        Raises:
            ParameterError: The name is that of another model.
        """
        if self.strict_model and name not in (None, "", self.model):
            raise ParameterError(f"the model {name!r:.80} is not served here; this server has {self.model}")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The subprotocol and the additional headers of the response that accepts the upgrade."""

    subprotocol: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """The last messages of a connection, and the code and reason of the WebSocket close frame that follows them."""

    messages: Sequence[WireMessage]
    code: int
    reason: str

    @property
    def close_reason(self) -> str:
        """The reason, cut to the size that a close frame can hold."""
        return self.reason.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The HTTP response that refuses the upgrade."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class PendingFlushes(dict[int, Purpose], Generic[Purpose]):
    """The flushes that have not been answered: what each was requested for, by marker."""

    _last_marker = 0

    def add(self, purpose: Purpose) -> Flush:
        """Return a flush with a new marker. Its `Flushed` event carries the same marker."""
        self._last_marker += 1
        self[self._last_marker] = purpose
        return Flush(self._last_marker)


class ServerProtocol(ABC):
    """The server's side of a wire protocol, for one connection.

    Attributes:
        name: Name of the protocol in metrics and logs.
        idle_factor: The time without a message after which a stream is closed, as a multiple of `idle_seconds`.
        wants_vad: Whether `send` uses `Vad` events, of which there is one per frame. The server reads it after `start`.
        unsupported: What the client has requested and the model cannot do, for the log; a dictionary as ordered set.
    """

    name: ClassVar[str]
    idle_factor: ClassVar[float] = 1.0
    wants_vad: bool = True
    _finishing = False

    def __init__(self, request: Request, server_info: ServerInfo) -> None:
        """Keep the opening request for `start`, which checks it."""
        self._request = request
        self._server_info = server_info
        self.unsupported: dict[str, None] = {}

    @abstractmethod
    def credential(self) -> str | None:
        """Return the API key that the client sent, or `None`."""

    @abstractmethod
    def refuse(self, error: TympanError) -> Refusal | CloseInfo:
        """Return the response to a client that is not admitted.

        A `CloseInfo` means that the upgrade is accepted first: browsers cannot read the response to a refused upgrade.
        """

    def accept(self) -> Acceptance:
        """Return the response that accepts the upgrade."""
        return Acceptance()

    @abstractmethod
    def start(self) -> AudioFormat:
        """Check the parameters of the opening request and return the audio format.

        Raises:
            ParameterError: A parameter is invalid.
        """

    @abstractmethod
    def receive(self, message: WireMessage) -> Sequence[Action]:
        """Return the commands for the session and the immediate answers to a message, in the order of execution.

        Raises:
            RequestError: The message is invalid. The connection ends with this error.
        """

    def _finish(self) -> Sequence[Finish]:
        """Return the command that ends the stream, after which `_finishing` is true and messages are ignored."""
        self._finishing = True
        return (Finish(),)

    @abstractmethod
    def send(self, event: Event, channel: int) -> Sequence[Answer]:
        """Return the messages that report an event on one channel, if any, and the flushes that the event requires."""

    def fail(self, error: Exception | None) -> CloseInfo:
        """Return how the connection ends; `None` is a normal end, which sends no message. Neither does a restart."""
        if error is None or isinstance(error, RestartingError):
            return CloseInfo((), close_code(error), "" if error is None else str(error))
        return self.close_with_error(error)

    @abstractmethod
    def close_with_error(self, error: Exception) -> CloseInfo:
        """Return the error message and the close code for an error that ends the connection."""


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """A request to continue a stream after a lost connection.

    Attributes:
        token: Token of the stream, from `ResumableProtocol.give_token`.
        received: Number of messages that the client has received, not counting droppable ones.
    """

    token: str
    received: int


class ResumableProtocol(ServerProtocol):
    """A protocol whose clients can continue their stream on another connection."""

    @abstractmethod
    def resume_request(self) -> ResumeRequest | None:
        """Return the client's request to continue a stream, or `None` if it opens a new one.

        Raises:
            ParameterError: The request is incomplete.
        """

    @abstractmethod
    def wants_token(self) -> bool:
        """Return whether the client requests a token to continue its stream; called after `start`."""

    @abstractmethod
    def give_token(self, token: str) -> None:
        """Set the token, which the protocol sends to the client."""

    @abstractmethod
    def resumed(self) -> WireMessage:
        """Return the first message on the new connection: how much of the client's audio and commands has arrived."""

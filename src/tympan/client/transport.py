"""One WebSocket connection to a server, opened by a `Transport`.

A transport is a function, so another one is easily made: `functools.partial(open_websocket, ssl=context)` uses a custom
TLS context.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import ssl as ssl_module
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import websockets.asyncio.client
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tympan.errors import ServerError

OPEN_TIMEOUT_SECONDS: Final = 20.0
CLOSE_TIMEOUT_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 20.0
"""Time without a message after which a ping is sent. After the same time without a message or an answer the connection
is lost; the kernel alone would take a quarter of an hour to notice that the network is gone."""

_REASONS: Final = {
    1000: "incomplete",
    1006: "connection_lost",
    1008: "policy",
    1009: "too_big",
    1011: "internal",
    1012: "restarting",
    1013: "full",
}
"""Error codes by close code, for servers that send no `error` message."""


class Connection(Protocol):
    """An open connection. `send` and `receive` raise `NoConnectionError` once it has ended."""

    async def send(self, frame: str | bytes) -> None:
        """Send a message; wait while the network accepts none."""

    async def receive(self) -> str | bytes:
        """Return the next message."""

    async def close(self) -> None:
        """Close the connection. May be called more than once, and after the peer has closed it."""


Transport = Callable[[str, Mapping[str, str]], Awaitable[Connection]]
"""Opens a connection, given its URL and request headers, or raises `NoConnectionError`."""


class NoConnectionError(Exception):
    """A connection could not be opened, or has ended.

    Attributes:
        cause: Whether the server could not be reached, refused the connection, or the connection was closed.
        code: The HTTP status or the WebSocket close code.
        reason: The server's error code, or one for the close code.
        retry_after_seconds: When the server asked to try again; 0 if it did not.
    """

    def __init__(
        self,
        cause: Literal["unreachable", "refused", "closed"],
        message: str,
        *,
        code: int = 0,
        reason: str = "",
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.code = code
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    def as_server_error(self) -> ServerError:
        """Return the error for the user of the SDK."""
        return ServerError(str(self), self.reason, self.code if self.cause == "closed" else None)


async def open_websocket(
    url: str, headers: Mapping[str, str], *, ssl: ssl_module.SSLContext | None = None
) -> Connection:
    """Open a WebSocket.

    Raises:
        NoConnectionError: The server cannot be reached, or refuses.
    """
    try:
        socket = await websockets.asyncio.client.connect(
            url,
            additional_headers=dict(headers),
            # Audio hardly compresses, and trying costs time on both sides.
            compression=None,
            max_size=None,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            ping_interval=None,
            ssl=ssl or (True if url.startswith("wss:") else None),
        )
    except InvalidStatus as refusal:
        response = refusal.response
        raise refused(response.status_code, response.headers, bytes(response.body or b"")) from None
    except (OSError, TimeoutError, WebSocketException) as error:
        message = f"cannot reach {urlsplit(url).netloc.rpartition('@')[2]}: {error or type(error).__name__}"
        raise NoConnectionError("unreachable", message, reason="unreachable") from None
    return _WebSocket(socket)


class _WebSocket:
    """`Connection` over the websockets library."""

    def __init__(self, socket: websockets.asyncio.client.ClientConnection) -> None:
        self._socket = socket
        self._ping: asyncio.Task[None] | None = None

    async def send(self, frame: str | bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> str | bytes:
        """Any message shows that the connection lives: a busy server answers a ping only after the audio before it."""
        self._cancel_ping()
        try:
            while True:
                # Not wait_for: in Python 3.11 it may swallow a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_SECONDS):
                        return await self._socket.recv()
                if self._ping is not None and not self._ping.done():
                    raise NoConnectionError("closed", "the network is unreachable", code=1006, reason=_REASONS[1006])
                self._ping = asyncio.create_task(self._send_ping())
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def _send_ping(self) -> None:
        """Send a ping and wait for the answer; without a network even sending may not return."""
        with contextlib.suppress(ConnectionClosed):  # `receive` handles it
            await (await self._socket.ping())

    def _cancel_ping(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    async def close(self) -> None:
        self._cancel_ping()
        await self._socket.close()


def _closed(closed: ConnectionClosed) -> NoConnectionError:
    if closed.rcvd is None:
        return NoConnectionError("closed", "the connection was lost", code=1006, reason=_REASONS[1006])
    code = int(closed.rcvd.code)
    detail = f": {closed.rcvd.reason}" if closed.rcvd.reason else ""
    reason = _REASONS.get(code, "closed")
    return NoConnectionError(
        "closed", f"the server closed the stream ({reason}, {code}){detail}", code=code, reason=reason
    )


def refused(status: int, headers: Headers, body: bytes) -> NoConnectionError:
    """Return the error for an HTTP response in place of the upgrade, from its JSON body if it has one."""
    reason, message = f"http_{status}", f"the server answered with HTTP status {status}"
    try:
        error = json.loads(body)["error"]
        reason, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        pass  # not from this server, for example a proxy's page
    wait = retry_after_seconds(headers.get("Retry-After", ""))
    return NoConnectionError("refused", message, code=status, reason=reason, retry_after_seconds=wait)


def retry_after_seconds(value: str) -> float:
    """Return the seconds of a `Retry-After` header in either form (RFC 9110 §10.2.3), or 0 if it is invalid."""
    if value.isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, moment.timestamp() - time.time())

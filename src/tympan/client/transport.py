"""One connection to a server, behind a seam: a `Transport` opens it, and the stream never touches a socket itself.

Another transport (a TLS context of one's own, an in-process server, a recording) is a function of the same shape;
`functools.partial(open_websocket, ssl=context)` is one.
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
"""After so long without a message a ping is sent; after as long again, with neither message nor answer, the connection
is lost. The kernel alone would take a quarter of an hour to know that a network is not there any more."""

_REASONS: Final = {
    1000: "incomplete",
    1006: "connection_lost",
    1008: "policy",
    1009: "too_big",
    1011: "internal",
    1012: "restarting",
    1013: "full",
}
"""Names for close codes, for servers that send no `error` message first."""


class Connection(Protocol):
    """An open connection. `send` and `receive` raise `NoConnectionError` once it is over."""

    async def send(self, frame: str | bytes) -> None:
        """Hand one frame to the network; waits while the peer does not take any."""

    async def receive(self) -> str | bytes:
        """The next message."""

    async def close(self) -> None:
        """Say goodbye and free the connection. Safe to call twice and after the peer has closed."""


Transport = Callable[[str, Mapping[str, str]], Awaitable[Connection]]
"""Opens a connection to an address with request headers, or raises `NoConnectionError`."""


class NoConnectionError(Exception):
    """A connection could not be opened, or is over.

    `cause` says when: nobody answered, an HTTP answer refused it, or it was open and is closed now.
    `code` is the HTTP status or the close code, `reason` the server's own name for it, where it gave one.
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
        """The same for the user of the SDK."""
        return ServerError(str(self), self.reason, self.code if self.cause == "closed" else None)


async def open_websocket(
    url: str, headers: Mapping[str, str], *, ssl: ssl_module.SSLContext | None = None
) -> Connection:
    """A WebSocket to `url`.

    Raises:
        NoConnectionError: nobody answers there, or the server refuses.
    """
    try:
        socket = await websockets.asyncio.client.connect(
            url,
            additional_headers=dict(headers),
            # Sound does not shrink, and trying costs both sides time.
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
        self._asking: asyncio.Task[None] | None = None

    async def send(self, frame: str | bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> str | bytes:
        """A server that is busy with the audio already on its way answers a ping only after it; but it says words."""
        self._stop_asking()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(self._socket.recv(), QUIET_SECONDS)
                if self._asking is not None and not self._asking.done():
                    raise NoConnectionError("closed", "the network is gone", code=1006, reason=_REASONS[1006])
                self._asking = asyncio.create_task(self._ask())
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def _ask(self) -> None:
        """Ends with the answer to a ping. A network that is gone may not even take the ping."""
        with contextlib.suppress(ConnectionClosed):  # the reader learns why
            await (await self._socket.ping())

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def close(self) -> None:
        self._stop_asking()
        await self._socket.close()


def _closed(closed: ConnectionClosed) -> NoConnectionError:
    if closed.rcvd is None:
        return NoConnectionError("closed", "the connection was lost", code=1006, reason=_REASONS[1006])
    code = int(closed.rcvd.code)
    said = f": {closed.rcvd.reason}" if closed.rcvd.reason else ""
    reason = _REASONS.get(code, "closed")
    return NoConnectionError(
        "closed", f"the server closed the stream ({reason}, {code}){said}", code=code, reason=reason
    )


def refused(status: int, headers: Headers, body: bytes) -> NoConnectionError:
    """What a refusal before the upgrade says: its JSON body where there is one, its status line otherwise."""
    reason, message = f"http_{status}", f"the server answered with HTTP status {status}"
    try:
        error = json.loads(body)["error"]
        reason, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        pass  # somebody else's answer, such as a proxy's page
    wait = retry_after_seconds(headers.get("Retry-After", ""))
    return NoConnectionError("refused", message, code=status, reason=reason, retry_after_seconds=wait)


def retry_after_seconds(value: str) -> float:
    """Seconds that a `Retry-After` header asks for, in either form (RFC 9110 §10.2.3); 0 if it is unreadable."""
    if value.isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, moment.timestamp() - time.time())

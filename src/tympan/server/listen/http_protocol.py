"""uvicorn's HTTP protocol with time limits for reading a request's headers and for writing a response.

Without them, a client that sends nothing, or one header a minute, keeps its connection for ever (Slowloris).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tympan.server.listen.relay import relay_for
from tympan.server.listen.socket_limit import SocketLimit
from tympan.server.service import Service

HEAD_TIMEOUT_SECONDS = 10.0  # for the request line and headers, from the connection or the end of the last response on
MAX_HEAD_BYTES = 15 * 1024  # picows, which parses the opening request of a WebSocket again, accepts 16 KiB
WRITE_TIMEOUT_SECONDS = 30.0  # for the client to read any part of a response

_UPGRADE_HEADERS = {b"upgrade": b"websocket", b"connection": b"Upgrade"}


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it is closed or becomes a WebSocket; the arguments after `sockets` are uvicorn's."""

    def __init__(self, service: Service, sockets: SocketLimit, *arguments: Any, **named_arguments: Any) -> None:
        super().__init__(*arguments, **named_arguments)
        self._service = service
        self.sockets = sockets

    @property
    def address(self) -> str:
        """The client's IP address."""
        return self.client[0] if self.client else ""

    def evict(self) -> None:
        """Close the socket at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self.sockets.add(self)
        self._running_cycle: RequestResponseCycle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_write_timer()
        self._disconnect_running_cycle()
        self.sockets.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._disconnect_running_cycle()

    def handle_websocket_upgrade(self) -> None:
        self._disconnect_running_cycle()
        # picows accepts each of these headers with one token only, but Firefox sends `Connection: keep-alive, Upgrade`.
        self.scope["headers"] = [(name, _UPGRADE_HEADERS.get(name, value)) for name, value in self.scope["headers"]]
        relay = relay_for(self._service, self.sockets, self.url)
        if relay is None:
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in self.scope["headers"])
        relay.start(self.transport, b"GET " + self.url + b" HTTP/1.1\r\n" + headers + b"\r\n")

    def _get_upgrade(self) -> bytes | None:
        """Return the requested protocol; each of the two headers is a list, and may be repeated (RFC 9110 §7.6.1)."""
        upgrade, connection = (self._tokens(name) for name in (b"upgrade", b"connection"))
        if b"upgrade" not in connection or not upgrade:
            return None
        return b"websocket" if b"websocket" in upgrade else upgrade[0]

    def _tokens(self, name: bytes) -> list[bytes]:
        values = b",".join(value for each, value in self.headers if each == name)
        return [token.strip().lower() for token in values.split(b",") if token.strip()]

    def _disconnect_running_cycle(self) -> None:
        """Disconnect the request whose response is being written; uvicorn disconnects only the newest request."""
        if self._running_cycle is not None:
            self._running_cycle.disconnected = True
            self._running_cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the size of the headers.

        Raises:
            ValueError: The headers are too long; uvicorn responds with status 400.
        """
        self._in_head = False
        self._cancel_head_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            raise ValueError("the headers are too long")
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._start_head_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        super().resume_writing()

    def _start_head_timer(self) -> None:
        self._cancel_head_timer()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._on_head_timeout)
        self.sockets.set_idle(self, idle=True)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self.sockets.set_idle(self, idle=False)

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _on_head_timeout(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # otherwise the next request has already arrived
            self.transport.abort()

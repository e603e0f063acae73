"""The WebSocket client of a load: the `websockets` library without its I/O, on asyncio's transports.

A thousand streams share a machine with the server under test, so each message is framed and masked only once, with
`frame`; `WebSocket.send` writes these bytes as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol, cast
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

OPEN_TIMEOUT_SECONDS = 20.0


class MessageHandler(Protocol):
    """Callbacks of an open WebSocket."""

    def on_message(self, message: bytes) -> None: ...

    def on_close(self, code: int) -> None:
        """Handle the end of the connection; 1006 if there was no close frame."""


class NotOpenError(Exception):
    """The connection could not be opened. The text is short, and equal for equal causes."""


def frame(message: str | bytes) -> bytes:
    """Return a message as a client sends it, with header and mask (RFC 6455 §5.2)."""
    opcode, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
    return Frame(opcode, data).serialize(mask=True)


async def open_websocket(url: str, headers: Mapping[str, str], handler: MessageHandler) -> WebSocket:
    """Connect to ``url`` and complete the opening handshake.

    Raises:
        NotOpenError: The server is unreachable, refused the handshake, or did not answer in time.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            _, websocket = await asyncio.get_running_loop().create_connection(
                lambda: WebSocket(url, headers, handler), host, port, ssl=parts.scheme == "wss" or None
            )
            try:
                await websocket.opened
            except BaseException:
                websocket.abort()
                raise
    except TimeoutError:
        raise NotOpenError(f"no answer within {OPEN_TIMEOUT_SECONDS:g} s") from None
    except OSError as error:
        raise NotOpenError(f"unreachable ({error.strerror or error})") from None
    return websocket


class WebSocket(asyncio.Protocol):
    """A client connection, created by `open_websocket`."""

    def __init__(self, url: str, headers: Mapping[str, str], handler: MessageHandler) -> None:
        self._protocol = ClientProtocol(parse_uri(url), max_size=None)
        self._headers = headers
        self._handler = handler
        self._fragments: list[bytes] = []
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def unsent_bytes(self) -> int:
        """Size of the transport's write buffer."""
        return self._transport.get_write_buffer_size()

    def send(self, framed: bytes) -> None:
        """Send a framed message; do nothing if the connection is closed."""
        if self._protocol.state is State.OPEN:
            self._transport.write(framed)

    def close(self) -> None:
        """Start the closing handshake; `on_close` follows."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._write()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._end_handshake(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragments.append(bytes(event.data))
                if event.fin:
                    message = b"".join(self._fragments)
                    self._fragments.clear()
                    self._handler.on_message(message)
        self._write()

    def _end_handshake(self, response: Response) -> None:
        if self.opened.done():
            return
        if self._protocol.handshake_exc is None:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(NotOpenError(f"refused with HTTP status {response.status_code}"))

    def _write(self) -> None:
        """Send what the protocol has to send: handshake, pongs, close frames. An empty item is the end of the data."""
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        self._write()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(NotOpenError("the connection was lost in the handshake"))
        elif not self.opened.cancelled() and self.opened.exception() is None:
            close = self._protocol.close_rcvd
            self._handler.on_close(1006 if close is None else int(close.code))

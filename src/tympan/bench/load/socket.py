"""One WebSocket of a load: the `websockets` library without its I/O, under asyncio's transports.

A thousand streams share a machine with the server that they measure, so what is sent a thousand times is framed once:
`frame` writes a message, mask included, and `send` hands such bytes to the transport as they are.
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


class Listener(Protocol):
    """Who is told what happens on an open socket."""

    def heard(self, message: bytes) -> None: ...

    def ended(self, code: int) -> None:
        """Once, last. 1006: without a goodbye."""


class NotOpenError(Exception):
    """The socket could not be opened; the text is short and the same for the same cause."""


def frame(message: str | bytes) -> bytes:
    """A message as a client puts it on the wire (RFC 6455 §5.2)."""
    opcode, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
    return Frame(opcode, data).serialize(mask=True)


async def open_socket(url: str, headers: Mapping[str, str], listener: Listener) -> Socket:
    """Raises `NotOpenError`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            _, socket = await asyncio.get_running_loop().create_connection(
                lambda: Socket(url, headers, listener), host, port, ssl=parts.scheme == "wss" or None
            )
            try:
                await socket.opened
            except BaseException:
                socket.abort()
                raise
    except TimeoutError:
        raise NotOpenError(f"no answer within {OPEN_TIMEOUT_SECONDS:g} s") from None
    except OSError as error:
        raise NotOpenError(f"unreachable ({error.strerror or error})") from None
    return socket


class Socket(asyncio.Protocol):
    """Made by `open_socket`."""

    def __init__(self, url: str, headers: Mapping[str, str], listener: Listener) -> None:
        self._wire = ClientProtocol(parse_uri(url), max_size=None)
        self._headers = headers
        self._listener = listener
        self._parts: list[bytes] = []
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def unsent_bytes(self) -> int:
        """What the network has not taken yet."""
        return self._transport.get_write_buffer_size()

    def send(self, framed: bytes) -> None:
        """Nothing happens on a socket that is over."""
        if self._wire.state is State.OPEN:
            self._transport.write(framed)

    def close(self) -> None:
        """Say goodbye; `ended` follows."""
        if self._wire.state is State.OPEN:
            self._wire.send_close(1000)
            self._write()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._wire.connect()
        request.headers.update(self._headers)
        self._wire.send_request(request)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._wire.receive_data(data)
        for event in self._wire.events_received():
            if isinstance(event, Response):
                self._answered(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._parts.append(bytes(event.data))
                if event.fin:
                    message = b"".join(self._parts)
                    self._parts.clear()
                    self._listener.heard(message)
        self._write()

    def _answered(self, response: Response) -> None:
        if self.opened.done():
            return
        if self._wire.handshake_exc is None:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(NotOpenError(f"refused with HTTP status {response.status_code}"))

    def _write(self) -> None:
        """What the library wants to say: handshake, pongs, goodbyes. An empty one means that it has said everything."""
        for data in self._wire.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def eof_received(self) -> bool:
        self._wire.receive_eof()
        self._write()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(NotOpenError("the connection was lost in the handshake"))
        elif not self.opened.cancelled() and self.opened.exception() is None:
            goodbye = self._wire.close_rcvd
            self._listener.ended(1006 if goodbye is None else int(goodbye.code))

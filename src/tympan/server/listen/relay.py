"""Passes a client that resumes a stream to the front process that keeps the stream.

The kernel gives each connection to any front, and the token of a stream begins with the number of its front. The
client's bytes, decrypted, go on to that front's Unix socket, and the answers come back. A descriptor that is passed
instead would cost less, but not work with TLS, whose state is in the process that has accepted the connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast
from urllib.parse import parse_qs

from tympan.server.listen.socket_limit import SocketLimit
from tympan.server.service import Service


def resume_token(url: bytes) -> str:
    """Return the token of a request to resume a stream; empty for any other request."""
    query = url.partition(b"?")[2].decode("latin-1")
    return parse_qs(query).get("resume", [""])[0]


class RelayEnd(asyncio.Protocol):
    """One of the two sockets of a relay: writes what the other one reads."""

    def __init__(self) -> None:
        self.other: RelayEnd | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []  # until there is a transport

    def write(self, data: bytes) -> None:
        """Write to this socket."""
        if self._transport is None:
            self._waiting.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close this socket after what was written."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write what has waited."""
        self._transport = cast(asyncio.Transport, transport)
        for data in self._waiting:
            self._transport.write(data)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        assert self.other is not None
        self.other.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other socket."""
        assert self.other is not None
        self.other.close()

    def pause_writing(self) -> None:
        """Read no more from the other socket."""
        assert self.other is not None
        if self.other._transport is not None:
            self.other._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the other socket again."""
        assert self.other is not None
        if self.other._transport is not None and not self.other._transport.is_closing():
            self.other._transport.resume_reading()


class Relay(RelayEnd):
    """The client's socket of a relay. The server waits for it when it stops.

    Args:
        service: The server.
        sockets: The limit on open sockets, which counts the client.
        owner: A socket that is connected to the front that keeps the stream.
    """

    def __init__(self, service: Service, sockets: SocketLimit, owner: socket.socket) -> None:
        super().__init__()
        self._service = service
        self._sockets = sockets
        self._owner = owner
        self._end = RelayEnd()
        self.other, self._end.other = self._end, self

    def start(self, transport: asyncio.Transport, head: bytes) -> None:
        """Pass the connection on; its opening request is `head`."""
        self._sockets.replace(transport.get_protocol(), self)
        self._service.connections.add(self)
        self.connection_made(transport)
        transport.set_protocol(self)
        self._end.write(head)
        loop = asyncio.get_running_loop()
        self._connecting = loop.create_task(loop.create_connection(lambda: self._end, sock=self._owner))

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""
        self._sockets.remove(self)
        self._service.connections.remove(self)
        super().connection_lost(error)

    @property
    def address(self) -> str:
        """The client's address, which is counted already."""
        return ""

    def evict(self) -> None:
        """Close the socket at once."""
        if self._transport is not None:
            self._transport.abort()

    def check_limits(self, now: float) -> None:
        """Do nothing: the other front checks the stream."""

    def restart(self) -> None:
        """Do nothing: the other front ends the stream."""


def relay_for(service: Service, sockets: SocketLimit, url: bytes) -> Relay | None:
    """Return a relay for the opening request of a WebSocket, or None if this process serves it.

    If the front that keeps the stream was lost, so was the stream, and this process can say so.
    """
    path = "" if service.front is None else service.front.owner_address(resume_token(url))
    if not path:
        return None
    owner = socket.socket(socket.AF_UNIX)
    owner.setblocking(False)
    try:
        owner.connect(path)
    except OSError:
        owner.close()
        return None
    return Relay(service, sockets, owner)


class LocalTransport:
    """The transport of a Unix socket as picows needs it, which sets options of TCP on every socket."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the socket."""
        value = self._transport.get_extra_info(name, default)
        return _LocalSocket(value) if name == "socket" else value


class _LocalSocket:
    """A Unix socket that ignores options of TCP."""

    def __init__(self, wrapped: socket.socket) -> None:
        self._socket = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if level != socket.IPPROTO_TCP:
            self._socket.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        return 0 if level == socket.IPPROTO_TCP else self._socket.getsockopt(level, option)


def is_local(transport: asyncio.BaseTransport) -> bool:
    """Return whether a transport is that of a client whom another front has passed on."""
    return hasattr(socket, "AF_UNIX") and transport.get_extra_info("socket").family == socket.AF_UNIX

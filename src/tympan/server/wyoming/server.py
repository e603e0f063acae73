"""Accepts Wyoming clients on a port of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import ip_address

from tympan.server.listen.listener import bind_shared, listen_on
from tympan.server.listen.socket_limit import SocketLimit
from tympan.server.service import Service
from tympan.server.wyoming.connection import WyomingConnection
from tympan.server.wyoming.events import LINE_BYTES

logger = logging.getLogger(__name__)


class WyomingServer:
    """Binds the port when it is created; call `start` once the engine is ready, and `close` when clients have ended.

    Attributes:
        port: The port.

    Raises:
        ConfigError: The address is invalid or in use.
    """

    def __init__(self, service: Service, sockets: SocketLimit, port: int) -> None:
        self._service = service
        self._sockets = sockets
        bind = listen_on if service.front is None else bind_shared
        self._socket = bind(service.config.server.wyoming_host, port)
        self.address, self.port = self._socket.getsockname()[:2]
        self._connections: set[WyomingConnection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept clients, and log where."""
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=LINE_BYTES)
        logger.info("the Wyoming protocol is served on tcp://%s:%d", self.address, self.port)
        for text in self._open_to_network():
            logger.warning("%s", text)

    def close(self) -> None:
        """Accept no more clients, and cut the connections that are left."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for connection in list(self._connections):
            connection.evict()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = WyomingConnection(self._service, self._sockets, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def _open_to_network(self) -> Iterator[str]:
        if not ip_address(self.address.partition("%")[0]).is_loopback:
            yield (
                "Wyoming clients need no key, so everyone who can reach "
                f"{self.address} port {self.port} over the network can use this server: let a firewall admit only Home "
                "Assistant, or set wyoming_host to 127.0.0.1"
            )

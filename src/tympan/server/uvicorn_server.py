"""Runs the application under uvicorn, with a shutdown that lets open streams end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from tympan.config import Config
from tympan.errors import missing_package
from tympan.server.access.front import Front
from tympan.server.access.start_checks import open_to_network, readable_secrets
from tympan.server.app import PROTOCOLS
from tympan.server.listen.http_protocol import HttpProtocol
from tympan.server.listen.listener import listen, tls_context
from tympan.server.listen.socket_limit import SocketLimit, most_sockets
from tympan.server.listen.websocket import protocol_class
from tympan.server.observability.logs import log_config
from tympan.server.observability.stderr_writer import stderr_handler
from tympan.server.service import Service
from tympan.version import version

if TYPE_CHECKING:
    from tympan.server.wyoming.server import WyomingServer

logger = logging.getLogger(__name__)

# uvicorn cuts a socket at this factor of the message limit, to bound memory; the connection's limit explains itself.
HARD_LIMIT_FACTOR = 4

TLS_HANDSHAKE_SECONDS = 10.0


class UvicornServer(uvicorn.Server):
    """uvicorn's server; when it is stopped, streams receive their last words before sockets are closed.

    Attributes:
        wyoming: Accepts Wyoming clients; `None` without a port for them.

    Raises:
        ConfigError: The TLS certificate cannot be used, or the port for Wyoming clients is in use.
        MissingPackageError: A port for Wyoming clients is set, and their package is missing.
    """

    def __init__(self, app: FastAPI, config: Config) -> None:
        tls = tls_context(config.server)
        limits = config.limits
        service: Service = app.state.service
        refused = service.metrics.refused.labels(reason="connections")
        most = limits.max_connections and ceil(limits.max_connections / config.server.fronts)
        sockets = SocketLimit(most or most_sockets(), limits.address_connections, refused.inc, service.counts)
        service.metrics.show_sockets(sockets)
        process = "" if service.front is None else f"front {service.front.number}"
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(HttpProtocol, service, sockets),  # type: ignore[arg-type]  # a class or a factory
                ws=protocol_class(service, PROTOCOLS, sockets),
                ws_max_size=HARD_LIMIT_FACTOR * config.limits.message_bytes,
                log_config=log_config(config.server, process),
                ssl_context_factory=None if tls is None else lambda *_: tls,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._service = service
        self.wyoming = _wyoming_server(self._service, sockets)
        self._settings = config.server
        self._drain_delay_seconds = config.limits.drain_delay_seconds
        self._hurried = asyncio.Event()

    def stop(self) -> None:
        """Stop the server; at a second call, without waiting for its streams. Call it on the event loop."""
        if self.should_exit:
            self._hurried.set()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the caller (`tympan.server.signals`)."""
        yield

    async def serve_until_stopped(self, listener: socket.socket | None = None) -> str:
        """Serve until a signal arrives, `should_exit` is set, or the engine cannot recover.

        Args:
            listener: The socket to accept from; by default one on the configured port.

        Returns:
            The fatal error that requires a restart of the process; empty after an intended end.

        Raises:
            ConfigError: The address is invalid or in use.
        """
        with listener or listen(self._settings) as bound:
            await self.serve([bound])
        stderr_handler().wait()  # the event loop has nothing left to do
        return self._service.fatal_error

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, and log where."""
        await super().startup([])
        if self.should_exit:
            return
        self.started = False
        for listener in sockets or ():
            self.servers.append(await self._accept_from(listener))
        if self._service.front is not None:
            await self._join(self._service.front)
        self.started = True
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        info, capacity = self._service.engine.info, self._service.engine.capacity
        model = f"model {info.model} ({info.engine} on {info.device}, {capacity} streams)"
        scheme = "https" if self.config.is_ssl else "http"
        logger.info("Tympan %s serves %s on %s://%s:%d", version(), model, scheme, _host_in_url(host), port)
        if self._service.observers.recorder is not None:
            logger.warning("streams are recorded in %s", self._service.observers.recorder.folder)
        for text in (*open_to_network(self._settings, host), *readable_secrets(self._settings)):
            logger.warning("%s", text)
        if self.wyoming is not None:
            await self.wyoming.start()

    async def _join(self, front: Front) -> None:
        """Accept the clients that other front processes pass to this one, and let the supervisor read the metrics."""

        async def send_metrics(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(self._service.metrics.render())
            writer.close()

        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_unix_server(self._make_protocol, front.address))
        self.servers.append(await asyncio.start_unix_server(send_metrics, front.metrics_address))
        front.ledger.set_serving(front.number)

    async def _accept_from(self, listener: socket.socket) -> asyncio.Server:
        """Accept connections as uvicorn does, but with a short time limit for the TLS handshake."""
        config = self.config
        seconds = TLS_HANDSHAKE_SECONDS if config.ssl else None
        return await asyncio.get_running_loop().create_server(
            self._make_protocol, sock=listener, backlog=config.backlog, ssl=config.ssl, ssl_handshake_timeout=seconds
        )

    def _make_protocol(self) -> asyncio.Protocol:
        factory: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return factory(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop; called ten times a second."""
        return await super().on_tick(counter) or bool(self._service.fatal_error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let open streams end while probes and new clients still get an answer, then close the listener and stop."""
        draining = asyncio.create_task(self._drain())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurried):
            task.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)
        for server in self.servers:
            server.close()
        if self.wyoming is not None:
            self.wyoming.close()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        self._service.connections.leaving = True
        if self._drain_delay_seconds and not self._service.fatal_error:
            logger.info("/ready is false; clients are accepted for %g s", self._drain_delay_seconds)
            await asyncio.sleep(self._drain_delay_seconds)
        await self._service.drain()


def _wyoming_server(service: Service, sockets: SocketLimit) -> WyomingServer | None:
    port = service.config.server.wyoming_port
    if port is None:
        return None
    try:
        from tympan.server.wyoming.server import WyomingServer
    except ModuleNotFoundError as error:
        raise missing_package("the Wyoming protocol", error.name, "wyoming") from None
    return WyomingServer(service, sockets, port)


def _host_in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

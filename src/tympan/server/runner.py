"""Runs the app under uvicorn, with a shutdown that gives open streams their last words."""

from __future__ import annotations

import logging
import socket

import uvicorn
from fastapi import FastAPI

from tympan.config import Config
from tympan.errors import ConfigError
from tympan.server.app import PROTOCOLS
from tympan.server.http_protocol import HttpProtocol
from tympan.server.service import Service
from tympan.server.socket import protocol_class
from tympan.version import version

logger = logging.getLogger(__name__)


LOG_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}

# uvicorn cuts a socket at its limit without a word. Ours comes first, with a sentence; this one bounds memory.
HARD_LIMIT_FACTOR = 4
RECEIVE_BUFFER_BYTES = 128 * 1024  # under three seconds of audio


class Runner(uvicorn.Server):
    """uvicorn's server, but SIGTERM and SIGINT let streams end well before sockets are closed."""

    def __init__(self, app: FastAPI, config: Config) -> None:
        level = config.server.log_level
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws=protocol_class(app.state.service, PROTOCOLS),
                ws_max_size=HARD_LIMIT_FACTOR * config.limits.message_bytes,
                log_config={**LOG_CONFIG, "loggers": {"tympan": {"level": level.upper()}}},
                ssl_certfile=config.server.tls_certificate,
                ssl_keyfile=config.server.tls_key,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._service: Service = app.state.service
        self._listen_on = (config.server.bind_host, config.server.port)

    async def run_until_told(self) -> str:
        """Bind the port, serve until a signal comes or `should_exit` is set; or until only a new process helps: then
        the answer says why, else it is empty.

        Raises `ConfigError` for a bad address or certificate.
        """
        host, port = self._listen_on
        try:
            self.config.load()
        except OSError as error:  # ssl's errors are, too
            raise ConfigError(f"cannot serve TLS with {self.config.ssl_certfile}: {error.strerror or error}") from None
        try:
            listener = socket.create_server(self._listen_on, family=_family(host), backlog=2048)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from None
        # Accepted sockets inherit it. What lies here delays the answers to a client's pings, so it is little.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        with listener:
            await self.serve([listener])
        return self._service.lost

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        info, capacity = self._service.engine.info, self._service.engine.capacity
        what = f"model {info.model} ({info.engine} on {info.device}, {capacity} streams)"
        scheme = "https" if self.config.is_ssl else "http"
        logger.info("Tympan %s serves %s on %s://%s:%d", version(), what, scheme, _named(host), port)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to stop."""
        return await super().on_tick(counter) or bool(self._service.lost)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._service.drain()
        await super().shutdown(sockets)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _named(host: str) -> str:
    host = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    return f"[{host}]" if ":" in host else host

"""Runs the app under uvicorn, with a shutdown that gives open streams their last words."""

from __future__ import annotations

import logging
import socket

import uvicorn
from fastapi import FastAPI

from tympan.config import Config
from tympan.server.app import PROTOCOLS
from tympan.server.listen.http_protocol import HttpProtocol
from tympan.server.listen.listener import listen, tls_context
from tympan.server.listen.websocket import protocol_class
from tympan.server.observability.logs import log_config
from tympan.server.service import Service
from tympan.version import version

logger = logging.getLogger(__name__)

# uvicorn cuts a socket at its limit without a word. Ours comes first, with a sentence; this one bounds memory.
HARD_LIMIT_FACTOR = 4


class Runner(uvicorn.Server):
    """uvicorn's server, but SIGTERM and SIGINT let streams end well before sockets are closed."""

    def __init__(self, app: FastAPI, config: Config) -> None:
        """Raises `ConfigError` for a bad certificate."""
        tls = tls_context(config.server)
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws=protocol_class(app.state.service, PROTOCOLS),
                ws_max_size=HARD_LIMIT_FACTOR * config.limits.message_bytes,
                log_config=log_config(config.server),
                ssl_context_factory=None if tls is None else lambda *_: tls,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._service: Service = app.state.service
        self._settings = config.server

    async def run_until_told(self, listener: socket.socket | None = None) -> str:
        """Serve on `listener`, by default on the port of the settings, until a signal comes or `should_exit` is set; or
        until only a new process helps: then the answer says why, else it is empty.

        Raises `ConfigError` for a bad address.
        """
        with listener or listen(self._settings) as bound:
            await self.serve([bound])
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
        if self._service.recorder is not None:
            logger.warning("streams are recorded in %s", self._service.recorder.folder)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to stop."""
        return await super().on_tick(counter) or bool(self._service.lost)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._service.drain()
        await super().shutdown(sockets)


def _named(host: str) -> str:
    host = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    return f"[{host}]" if ":" in host else host

"""A minimal HTTP server that responds while the model loads: seconds on a laptop, minutes for a large model.

Orchestrators poll the port to follow a start, so it is open from the first moment on. This server needs no web
framework, which takes a second to import.
"""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Any, Final

import msgspec

from tympan.config import ServerSettings
from tympan.engine.base import Engine, describe_startup
from tympan.errors import RestartingError
from tympan.server.listen.listener import tls_context
from tympan.server.listen.starting_page import POLICY, page
from tympan.server.routes.paths import route_path
from tympan.version import version

REQUEST_SECONDS: Final = 5.0
REASONS: Final = {200: "OK", 503: "Service Unavailable"}


class StartupServer:
    """Async context manager that responds on `listener`, and leaves it open for the actual server."""

    def __init__(self, listener: socket.socket, settings: ServerSettings, engine: Engine) -> None:
        """Prepare the server.

        Raises:
            ConfigError: The TLS certificate cannot be loaded.
        """
        self._listener = listener
        self._tls = tls_context(settings)
        self._root_path = settings.root_path
        self._engine = engine

    async def __aenter__(self) -> StartupServer:
        self._server = await asyncio.start_server(self._serve, sock=self._listener.dup(), ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._respond(head))
                await writer.drain()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client does not speak HTTP
        finally:
            writer.close()

    def _respond(self, head: bytes) -> bytes:
        method, _, target = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        with_body = method != "HEAD"
        wants_page = b"text/html" in head.lower()
        reason = describe_startup(self._engine)
        match route_path(target.partition(" ")[0].partition("?")[0], self._root_path):
            case "/health":
                fields: dict[str, Any] = {"status": "starting", "version": version(), "reason": reason}
                return _response(200, fields, with_body)
            case "/ready":
                return _response(503, {"ready": False, "reason": reason}, with_body)
            case "/" if wants_page:
                policy = f"Content-Security-Policy: {POLICY}\r\n"
                return _http(503, "text/html; charset=utf-8", page(reason), with_body, policy)
            case _:
                error = {"code": RestartingError.code, "message": f"{reason}; try again in a moment"}
                return _response(503, {"error": error}, with_body)


def _response(status: int, fields: dict[str, Any], with_body: bool) -> bytes:
    return _http(status, "application/json", msgspec.json.encode(fields), with_body)


def _http(status: int, kind: str, body: bytes, with_body: bool, headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nRetry-After: 1\r\n{headers}Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")

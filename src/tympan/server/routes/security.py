"""Security headers of every response, and the check of the `Host` header of every HTTP request.

`Admission` checks the host of WebSockets, which under uvicorn do not pass through the application.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tympan.errors import HostError
from tympan.protocols.wire import json_refusal
from tympan.server.access.origins import check_host
from tympan.server.routes.responses import response_of
from tympan.server.service import Service

HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
PROBES: Final = ("/health", "/ready")  # load balancers send any host, and the answers contain nothing secret


class SecurityMiddleware:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._app
        if scope["path"] not in PROBES:
            try:
                check_host(
                    Headers(scope=scope), self._service.config.server.allowed_hosts, self._service.keys.asked_for
                )
            except HostError as error:
                self._service.count_refusal(error)
                app = response_of(json_refusal(error, {"error": {"code": error.code, "message": str(error)}}))
        await app(scope, receive, send_with_headers)

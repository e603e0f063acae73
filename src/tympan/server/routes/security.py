"""What every request passes before its route: the form of its path, the `Host` header, CORS, and security headers.

`Admission` checks host and origin of WebSockets, which under uvicorn do not pass through the application.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tympan.errors import AccessError, HostError, OriginError
from tympan.protocols.wire import json_refusal
from tympan.server.access.origins import check_host, check_origin
from tympan.server.routes.cors import VARY, is_preflight, preflight_headers, response_headers
from tympan.server.routes.paths import route_path
from tympan.server.routes.responses import response_of
from tympan.server.service import Service

HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
PROBES: Final = ("/health", "/ready")  # load balancers send any host, and the answers contain nothing secret


class SecurityMiddleware:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._root_path = service.config.server.root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        mounted = scope.get("root_path", "")  # of the platform that runs the application
        path = route_path(scope["path"].removeprefix(mounted), self._root_path)
        routed = {**scope, "path": mounted + path}
        if scope["type"] == "websocket":
            await self._app(routed, receive, send)
            return
        if scope["method"] == "HEAD":  # the server leaves out the body
            routed["method"] = "GET"
        headers = dict(Headers(scope=scope))
        cors = self._cors_headers(headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                for name, value in {**HEADERS, **VARY, **cors}.items():
                    added.setdefault(name, value)
            await send(message)

        answer = self._answer(scope, headers, path, mounted)
        await (answer or self._app)(routed, receive, send_with_headers)

    def _answer(self, scope: Scope, headers: Mapping[str, str], path: str, mounted: str) -> Response | None:
        """Return the response to a request that does not reach the application."""
        server, keys_required = self._service.config.server, self._service.keys.asked_for
        try:
            if path not in PROBES:
                check_host(headers, server.allowed_hosts, keys_required)
            if is_preflight(scope["method"], headers):
                check_origin(headers, server.allowed_origins, keys_required)
                return Response(status_code=204, headers=dict(preflight_headers(headers)))
        except (HostError, OriginError) as error:
            return self._refuse(error)
        prefix = mounted + self._root_path
        if prefix and scope["path"] == prefix:  # the page's addresses are relative to the slash
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse(f"{prefix}/" + (f"?{query}" if query else ""), 308)
        return None

    def _refuse(self, error: AccessError) -> Response:
        self._service.count_refusal(error)
        return response_of(json_refusal(error, {"error": {"code": error.code, "message": str(error)}}))

    def _cors_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers for the page that sends the request; none if its origin is not allowed."""
        if "origin" not in headers:
            return {}
        try:
            check_origin(headers, self._service.config.server.allowed_origins, self._service.keys.asked_for)
        except OriginError:
            return {}
        return response_headers(headers)

"""The answer to a plain HTTP request for the path of a WebSocket."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from fastapi.responses import JSONResponse

HEADERS: Final = {"Upgrade": "websocket", "Connection": "Upgrade"}


async def upgrade_required(request: Request) -> JSONResponse:
    """Respond with status 426 and say how to connect (RFC 9110 §15.5.22)."""
    message = f"{request.url.path} is a WebSocket: connect to it with ws:// or wss://"
    if "sec-websocket-key" in request.headers:
        message += "; the proxy in front of this server must pass on the headers Upgrade and Connection"
    return JSONResponse({"error": {"code": "upgrade_required", "message": message}}, 426, HEADERS)

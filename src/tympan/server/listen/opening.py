"""Opening requests of WebSockets as picows has parsed them, and the HTTP responses that refuse them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote

import msgspec
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from tympan.protocols.base import Request
from tympan.server.routes.paths import route_path
from tympan.server.routes.responses import opening_request
from tympan.server.sessions.connection import MakeProtocol

VERSION: Final = "13"  # RFC 6455


def parse_opening(
    upgrade: WSUpgradeRequest, endpoints: Mapping[str, MakeProtocol], root_path: str
) -> tuple[MakeProtocol, Request] | WSUpgradeResponseWithListener:
    """Return the protocol of the requested path and the request, or the response that refuses it."""
    path, _, query = upgrade.path.decode("latin-1").partition("?")
    path = route_path(unquote(path), root_path)
    make_protocol = endpoints.get(path)
    if make_protocol is None:
        return _error(404, "not_found", f"there is no WebSocket at this path; the paths are {', '.join(endpoints)}", {})
    if upgrade.headers.get("sec-websocket-version") != VERSION:
        headers = {"Sec-WebSocket-Version": VERSION, "Upgrade": "websocket"}
        return _error(426, "upgrade_required", f"the WebSocket version must be {VERSION} (RFC 6455)", headers)
    headers = {name.lower(): _to_latin1(value) for name, value in reversed(list(upgrade.headers.items()))}
    return make_protocol, opening_request(path, dict(parse_qsl(query, keep_blank_values=True)), headers)


def error_response(status: int, body: bytes | None, headers: Mapping[str, str]) -> WSUpgradeResponseWithListener:
    """Return a response in place of the upgrade."""
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body, headers), None)


def _error(status: int, code: str, message: str, headers: Mapping[str, str]) -> WSUpgradeResponseWithListener:
    body = msgspec.json.encode({"error": {"code": code, "message": message}})
    return error_response(status, body, {"content-type": "application/json", **headers})


def _to_latin1(value: str) -> str:
    """Decode a header value as other servers do; picows decodes bytes outside ASCII to surrogates."""
    return value.encode("ascii", "surrogateescape").decode("latin-1")

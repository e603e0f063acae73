"""Cross-origin requests of web pages (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

`allowed_origins` decides for HTTP as it does for WebSockets. Cookies are not used, so an allowed page needs no further
permission.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VARY: Final = {"Vary": "Origin"}
"""A header of every response, so that a cache does not answer one page with the response to another."""

_EXPOSED: Final = "Retry-After, WWW-Authenticate, dg-request-id, dg-error"
_METHODS: Final = "GET, HEAD, POST"
_PREFLIGHT_SECONDS: Final = 600


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a browser asks whether it may send a request; header names are in lower case."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def response_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that let the page of an allowed origin read the response."""
    return {"Access-Control-Allow-Origin": headers["origin"], "Access-Control-Expose-Headers": _EXPOSED}


def preflight_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that allow the request which the preflight describes."""
    allowed = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS)}
    if wanted := headers.get("access-control-request-headers"):
        allowed["Access-Control-Allow-Headers"] = wanted
    if headers.get("access-control-request-private-network") == "true":
        allowed["Access-Control-Allow-Private-Network"] = "true"
    return allowed

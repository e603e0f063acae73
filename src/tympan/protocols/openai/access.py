"""Authentication, refusals and errors of OpenAI's APIs, the same over HTTP and WebSocket."""

from __future__ import annotations

from typing import Any

from tympan.errors import AccessError, CapacityError, LimitError, QuotaError, RequestError, RestartingError, TympanError
from tympan.protocols.base import Acceptance, Refusal, Request
from tympan.protocols.errors import public_error
from tympan.protocols.wire import json_refusal

_KEY_SUBPROTOCOL = "openai-insecure-api-key."  # for browsers, which cannot set headers
_SUBPROTOCOL = "realtime"


def credential(request: Request) -> str | None:
    """Return the key of the `Authorization` header, or of a browser's subprotocol."""
    offered = next((name for name in request.subprotocols if name.startswith(_KEY_SUBPROTOCOL)), "")
    return request.authorization("bearer") or offered.removeprefix(_KEY_SUBPROTOCOL) or None


def acceptance(request: Request) -> Acceptance:
    """Return the response with the subprotocol, if the client offers it."""
    return Acceptance(_SUBPROTOCOL if _SUBPROTOCOL in request.subprotocols else None)


def refusal(error: TympanError) -> Refusal:
    """Return the HTTP response for an error, in OpenAI's form. OpenAI's clients retry after a 429."""
    status = 429 if isinstance(error, CapacityError) else None
    return json_refusal(error, {"error": error_fields(error)}, status=status)


def error_fields(error: Exception) -> dict[str, Any]:
    """Return the `error` object of a response or an event."""
    code, message = public_error(error)
    kind = "server_error"
    if isinstance(error, AccessError):
        kind, code = "invalid_request_error", "invalid_api_key"
    elif isinstance(error, CapacityError | QuotaError):
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    elif isinstance(error, RequestError | LimitError):
        kind = "invalid_request_error"
    elif isinstance(error, RestartingError):
        code = "server_restarting"
    return {"message": message, "type": kind, "code": code, "param": None}

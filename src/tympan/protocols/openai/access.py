"""How OpenAI's clients are let in, and how they are told what went wrong: the same over HTTP and WebSocket."""

from __future__ import annotations

from typing import Any

from tympan.errors import (
    AccessError,
    CapacityError,
    LimitError,
    QuotaError,
    RequestError,
    RestartingError,
    TympanError,
)
from tympan.protocols.base import Acceptance, Refusal, Request, json_refusal, public_error

_KEY_SUBPROTOCOL = "openai-insecure-api-key."  # for browsers, which cannot set headers
_SUBPROTOCOL = "realtime"


def credential(request: Request) -> str | None:
    offered = next((name for name in request.subprotocols if name.startswith(_KEY_SUBPROTOCOL)), "")
    return request.bearer or offered.removeprefix(_KEY_SUBPROTOCOL) or None


def acceptance(request: Request) -> Acceptance:
    return Acceptance(_SUBPROTOCOL if _SUBPROTOCOL in request.subprotocols else None)


def refusal(error: TympanError) -> Refusal:
    """An HTTP answer in OpenAI's form; 429 is what their clients wait and try again on."""
    status = 429 if isinstance(error, CapacityError) else None
    return json_refusal(error, {"error": error_fields(error)}, status=status)


def error_fields(error: Exception) -> dict[str, Any]:
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

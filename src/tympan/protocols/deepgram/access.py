"""How Deepgram's clients are let in, or not: the same for its live API and for Flux."""

from __future__ import annotations

from tympan.errors import AccessError, CapacityError, QuotaError, RestartingError, TympanError
from tympan.protocols.base import Acceptance, Refusal, Request, json_refusal, public_error

_SCHEMES = ("token", "bearer")


def credential(request: Request) -> str | None:
    """The key of `Authorization: Token KEY` or `Bearer KEY`; browsers offer the subprotocols `token, KEY` instead."""
    offered = request.subprotocols
    if len(offered) >= 2 and offered[0].lower() in _SCHEMES:
        return offered[1]
    return request.authorization(*_SCHEMES)


def acceptance(request: Request) -> Acceptance:
    """Names the request, and echoes the scheme that a browser offered: it insists on an answer."""
    offered = request.subprotocols
    subprotocol = offered[0] if offered and offered[0].lower() in _SCHEMES else None
    return Acceptance(subprotocol, {"dg-request-id": request.id})


def refusal(request: Request, error: TympanError) -> Refusal:
    """An HTTP answer in Deepgram's form."""
    _, message = public_error(error)
    code, status = _reason(error)
    body = {"err_code": code, "err_msg": message, "request_id": request.id}
    return json_refusal(error, body, {"dg-request-id": request.id, "dg-error": code}, status)


def _reason(error: TympanError) -> tuple[str, int | None]:
    if isinstance(error, AccessError):
        return "INVALID_AUTH", None
    if isinstance(error, CapacityError | QuotaError):
        return "TOO_MANY_REQUESTS", 429
    if isinstance(error, RestartingError):
        return "SERVICE_UNAVAILABLE", None
    return "Bad Request", None

"""Authentication and refusals of Deepgram's live API, file API and Flux."""

from __future__ import annotations

from tympan.errors import AccessError, CapacityError, QuotaError, RestartingError, TympanError
from tympan.protocols.base import Acceptance, Refusal, Request, ServerProtocol
from tympan.protocols.errors import public_error
from tympan.protocols.wire import json_refusal

_SCHEMES = ("token", "bearer")


def credential(request: Request) -> str | None:
    """Return the key of `Authorization: Token KEY` or `Bearer KEY`, or of the subprotocols `token, KEY` of browsers."""
    offered = request.subprotocols
    if len(offered) >= 2 and offered[0].lower() in _SCHEMES:
        return offered[1]
    return request.authorization(*_SCHEMES)


def refusal(request: Request, error: TympanError) -> Refusal:
    """Return the HTTP response for an error, in Deepgram's form."""
    code, status = "Bad Request", None
    if isinstance(error, AccessError):
        code = "INVALID_AUTH"
    elif isinstance(error, CapacityError | QuotaError):
        code, status = "TOO_MANY_REQUESTS", 429
    elif isinstance(error, RestartingError):
        code = "SERVICE_UNAVAILABLE"
    _, message = public_error(error)
    body = {"err_code": code, "err_msg": message, "request_id": request.id}
    return json_refusal(error, body, {"dg-request-id": request.id, "dg-error": code}, status)


class DeepgramAccess(ServerProtocol):
    """The part of a protocol that the live API and Flux have in common."""

    def credential(self) -> str | None:
        return credential(self._request)

    def refuse(self, error: TympanError) -> Refusal:
        return refusal(self._request, error)

    def accept(self) -> Acceptance:
        """Echo the subprotocol that a browser offers, because it requires one in the response."""
        offered = self._request.subprotocols
        subprotocol = offered[0] if offered and offered[0].lower() in _SCHEMES else None
        return Acceptance(subprotocol, {"dg-request-id": self._request.id})

"""Who lost the connection comes back here: a request either opens a stream or goes on with one that was kept."""

from __future__ import annotations

import hmac

from tympan.errors import ResumeError, TympanError
from tympan.protocols.base import Acceptance, Refusal, Request, ResumableProtocol
from tympan.server.service import Service
from tympan.server.sessions.connection import Connection, MakeProtocol
from tympan.server.sessions.transport import NO_CODE, Transport


def open_connection(
    transport: Transport, service: Service, make_protocol: MakeProtocol, request: Request
) -> tuple[Connection, Acceptance | Refusal]:
    """The connection that `wire` belongs to from now on, and how to answer the upgrade."""
    protocol = make_protocol(request, service.server_info)
    connection = Connection(transport, service, protocol, request)
    try:
        resume_request = protocol.resume_request() if isinstance(protocol, ResumableProtocol) else None
        if resume_request is None:
            return connection, connection.open()
        service.admit(protocol.credential(), request.headers)
        kept = _find(service, resume_request.token, protocol.credential())
        kept.take_over(transport, resume_request.received)
    except TympanError as error:
        return connection, connection.refuse(error)
    except Exception:
        connection.on_gone(NO_CODE)  # whatever broke, no slot stays behind
        raise
    return kept, protocol.accept()


def _find(service: Service, token: str, credential: str | None) -> Connection:
    kept = service.resumable.get(token)
    # A token is of use only to whoever opened the stream; it may have been read in a log of addresses.
    if kept is None or not hmac.compare_digest((kept.credential or "").encode(), (credential or "").encode()):
        raise ResumeError("there is no such stream, or not any more; open a new one")
    return kept

"""Opening a connection: the request either opens a new stream or resumes one whose connection was lost."""

from __future__ import annotations

from tympan.errors import TympanError
from tympan.protocols.base import Acceptance, Refusal, Request, ResumableProtocol
from tympan.server.service import Service
from tympan.server.sessions.connection import Connection, MakeProtocol
from tympan.server.transport import NO_STATUS, Transport, TransportListener


def open_connection(
    transport: Transport, service: Service, make_protocol: MakeProtocol, request: Request
) -> tuple[TransportListener, Acceptance | Refusal]:
    """Return the connection that `transport` belongs to from now on, and the answer to the upgrade."""
    protocol = make_protocol(request, service.server_info)
    connection = Connection(transport, service, protocol, request)
    try:
        resume = protocol.resume_request() if isinstance(protocol, ResumableProtocol) else None
        if resume is None:
            return connection, connection.open()
        credential = protocol.credential()
        service.admission.check_client(credential, request.headers)
        kept = service.connections.find_resumable(resume.token, credential)
        kept.take_over(transport, resume.received)
    except TympanError as error:
        return connection, connection.refuse(error)
    except Exception:
        connection.on_gone(NO_STATUS)  # release the slots whatever has failed
        raise
    return kept, protocol.accept()

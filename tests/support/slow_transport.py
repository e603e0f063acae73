"""A transport whose client reads nothing until a test calls `read`."""

from __future__ import annotations

from tympan.protocols.base import WireMessage
from tympan.server.sessions.connection import Connection


class SlowTransport:
    """Records what is sent.

    Attributes:
        sent: The messages so far.
        code: The close code; `None` while the connection is open.
    """

    def __init__(self) -> None:
        self.writable = False
        self.sent: list[WireMessage] = []
        self.code: int | None = None

    def send(self, message: WireMessage) -> None:
        self.sent.append(message)

    def close(self, code: int, reason: str) -> None:
        self.code = code

    def pause_reading(self) -> None:
        """Do nothing."""

    resume_reading = abort = abandon = pause_reading

    def read(self, connection: Connection) -> None:
        """Become writable, so that the connection sends what is queued."""
        self.writable = True
        connection.on_writable()

"""A wire to a client that reads nothing until it is told to."""

from __future__ import annotations

from tympan.protocols.base import WireMessage
from tympan.server.sessions.connection import Connection


class SlowWire:
    """A client that reads nothing until `read`."""

    def __init__(self) -> None:
        self.writable = False
        self.sent: list[WireMessage] = []
        self.code: int | None = None

    def send(self, message: WireMessage) -> None:
        self.sent.append(message)

    def close(self, code: int, reason: str) -> None:
        self.code = code

    def pause_reading(self) -> None:
        """It sends little."""

    resume_reading = abort = abandon = pause_reading

    def read(self, connection: Connection) -> None:
        self.writable = True
        connection.on_writable()

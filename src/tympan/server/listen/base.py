"""What the two WebSocket transports share: the link to their connection and the limit for floods of messages."""

from __future__ import annotations

from tympan.server.transport import TransportListener

BURST_MESSAGES = 250
"""A client that sends more than this many messages at once is not read again before other clients."""
MESSAGES_PER_SECOND = 5_000
"""Rate at which messages of such a client are read."""


class BaseTransport:
    """The link between a WebSocket and its connection; subclasses send and receive.

    Attributes:
        writable: Whether `send` may be called; its `on_writable` is called when it becomes true again.
        connection: The connection that receives the messages, or `None` before the handshake and after the end.
    """

    def __init__(self) -> None:
        self.writable = True
        self.connection: TransportListener | None = None

    def abort(self) -> None:
        """Close the socket without a close frame."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Detach the connection, which has another transport now, and close the socket."""
        self.connection = None
        self.abort()

    def _on_writable(self) -> None:
        self.writable = True
        if self.connection is not None:
            self.connection.on_writable()

    def _detach(self, code: int) -> None:
        """Report the end of the WebSocket to the connection, once."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.on_gone(code)

"""The interfaces between a connection and its WebSocket (`listen/websocket.py`, `listen/asgi_websocket.py`)."""

from __future__ import annotations

from typing import Final, Protocol

from tympan.protocols.base import WireMessage

NO_STATUS: Final = 1005  # the peer sent a close frame without a code (RFC 6455 §7.4.1)
ABNORMAL_CLOSURE: Final = 1006  # the connection was lost without a close frame


class TransportListener(Protocol):
    """What a transport calls: its connection, on the event loop."""

    def start(self) -> None:
        """Begin to exchange messages: the upgrade has been answered."""

    def on_message(self, message: WireMessage) -> None:
        """Handle a complete message."""

    def on_writable(self) -> None:
        """Write the messages that wait: there is room again."""

    def on_gone(self, code: int = ABNORMAL_CLOSURE) -> None:
        """Handle the loss of the transport; `code` is the client's close code. May be called more than once."""


class Transport(Protocol):
    """A WebSocket to write to. No method blocks.

    Attributes:
        writable: Whether there is room for another message; the listener's `on_writable` reports when there is again.
    """

    writable: bool

    def send(self, message: WireMessage) -> None:
        """Send a text (`str`) or binary (`bytes`) message."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after the messages sent so far."""

    def pause_reading(self) -> None:
        """Stop to read the socket, so that the client is slowed down by TCP."""

    def resume_reading(self) -> None:
        """Read the socket again."""

    def abort(self) -> None:
        """Cut the connection; `on_gone` follows, as whenever the client is gone."""

    def abandon(self) -> None:
        """Cut the connection without a further call to the connection, which has another transport."""

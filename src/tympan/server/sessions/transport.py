"""A WebSocket as a connection sees it, whoever reads it: `socket.py` or `asgi_socket.py`."""

from __future__ import annotations

from typing import Final, Protocol

from tympan.protocols.base import WireMessage

NO_CODE: Final = 1005  # as close codes go: a goodbye without one
NO_GOODBYE: Final = 1006  # not even that


class Transport(Protocol):
    """None of these block."""

    writable: bool
    """Whether `send` is welcome; `Connection.on_writable` tells when it is again."""

    def send(self, message: WireMessage) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """After what was sent."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        """Cut it now. `Connection.on_gone` follows, as it does whenever the client is gone."""

    def abandon(self) -> None:
        """Cut it now, and call the connection no more: it has another wire."""

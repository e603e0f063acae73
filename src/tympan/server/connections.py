"""The open connections of a server: how they end at shutdown, and which of them a client can resume."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Protocol

from tympan.errors import ResumeError
from tympan.server.transport import Transport, TransportListener

logger = logging.getLogger(__name__)

EVICT_AFTER_SECONDS = 2.0


class ManagedConnection(Protocol):
    """A connection or an upload, as far as the server manages it."""

    def check_limits(self, now: float) -> None:
        """End the connection if it is over a limit; called about once a second with the event loop's time."""

    def restart(self) -> None:
        """Send the client its last words and ask it to reconnect."""


class ResumableConnection(ManagedConnection, TransportListener, Protocol):
    """A connection that another transport can take over.

    Attributes:
        lost_at: When the transport was lost, in the event loop's time; `None` while there is one.
    """

    lost_at: float | None

    @property
    def credential(self) -> str | None:
        """The credential that opened the stream."""

    def release(self) -> None:
        """Give the slots back; the client can no longer resume the stream."""

    def take_over(self, transport: Transport, received: int) -> None:
        """Continue on `transport` after the first `received` messages."""


class Connections:
    """All open connections of a server.

    Attributes:
        leaving: Whether the server will shut down, so that load balancers should send it no new clients.
        draining: Whether the server is shutting down, so that no connection is accepted.
        resumable: The connections that a client can resume, by token.
    """

    def __init__(self) -> None:
        self.leaving = False
        self.draining = False
        self._drained = False
        self.resumable: dict[str, ResumableConnection] = {}
        self._open: set[ManagedConnection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    def add(self, connection: ManagedConnection) -> None:
        """Register an open connection."""
        self._open.add(connection)
        self._none_open.clear()

    def remove(self, connection: ManagedConnection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    def find_resumable(self, token: str, credential: str | None) -> ResumableConnection:
        """Return the connection that `token` resumes.

        The credential must be the one that opened the stream: a token alone may have been read in a log of URLs.

        Raises:
            ResumeError: There is no such stream, or it was opened with another credential.
        """
        connection = self.resumable.get(token)
        if connection is None or not hmac.compare_digest(
            (connection.credential or "").encode(), (credential or "").encode()
        ):
            raise ResumeError("the stream to resume does not exist or has ended; open a new one")
        return connection

    @property
    def lost(self) -> int:
        """Number of streams whose connection was lost and that a client can resume."""
        return sum(connection.lost_at is not None for connection in self.resumable.values())

    def evict(self, now: float) -> bool:
        """Release the stream whose connection was lost first, to make room for a client that is here.

        A client that returns at once keeps its stream: the connection must have been lost for `EVICT_AFTER_SECONDS`.

        Returns:
            Whether there was such a stream.
        """
        lost = [(at, connection) for connection in self.resumable.values() if (at := connection.lost_at) is not None]
        at, connection = min(lost, key=lambda each: each[0], default=(now, None))
        if connection is None or now - at < EVICT_AFTER_SECONDS:
            return False
        connection.release()
        return True

    def check_limits(self, now: float) -> None:
        """Have every connection check its limits; `now` is the event loop's time."""
        for connection in list(self._open):
            connection.check_limits(now)

    async def drain(self, grace_seconds: float) -> None:
        """Accept no more connections, send every open one its last words, and wait up to `grace_seconds` for them.

        Another call after the first one has ended does not wait again.
        """
        self.leaving = self.draining = True
        if not self._open or self._drained:
            return
        logger.info("shutting down: waiting up to %.0f s for %d connections to end", grace_seconds, len(self._open))
        try:
            async with asyncio.timeout(grace_seconds):
                for connection in list(self._open):
                    connection.restart()
                await self._none_open.wait()
        except TimeoutError:
            logger.warning("%d connections did not end within the grace time", len(self._open))
        finally:
            self._drained = True

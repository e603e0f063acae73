"""The limit on open sockets, in total and for each client address.

At the limit, the socket that has waited longest for its client's request makes room for the new one: otherwise clients
that open sockets and send nothing could keep all others out, health checks included.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final, Protocol

from tympan.server.access.ledger import Counts
from tympan.server.access.ledger_client import LedgerClient

logger = logging.getLogger(__name__)

DESCRIPTORS_PER_SOCKET: Final = 2  # a stream in a container has a second one, to its decoder
RESERVED_DESCRIPTORS: Final = 24  # for files, the engine, and sockets that are being closed


class LimitedSocket(Protocol):
    """A client's connection."""

    @property
    def address(self) -> str:
        """The client's IP address; empty if it is unknown."""

    def evict(self) -> None:
        """Close the socket at once."""


class SocketLimit:
    """Counts the sockets of a server.

    Args:
        most: Most sockets.
        most_per_address: Most sockets of one client address, or `None`. Clients behind a proxy have the proxy's.
        on_refused: Called for every socket that is closed because of a limit.
        counts: Counts the sockets of each address.
    """

    def __init__(
        self,
        most: int,
        most_per_address: int | None = None,
        on_refused: Callable[[], None] = lambda: None,
        counts: Counts | LedgerClient | None = None,
    ) -> None:
        self.most = most
        self._on_refused = on_refused
        self._refused = 0
        self._most_per_address = most_per_address
        self._counts = counts or Counts()
        self._open: dict[object, str] = {}  # the names of their counts; empty if they are not counted
        self._idle: dict[object, LimitedSocket] = {}  # waiting for a request, the longest wait first

    @property
    def open(self) -> int:
        """Number of open sockets."""
        return len(self._open)

    def add(self, socket: LimitedSocket) -> None:
        """Count a new socket, and evict one if there are too many: the new one if its address has too many."""
        address = socket.address
        self._open[socket] = ""
        if self._most_per_address is not None and address:
            name = f"address {address}"
            if self._counts.take(name, 1, self._most_per_address) is not None:
                self._evict(socket)
                return
            self._open[socket] = name
        if len(self._open) > self.most:
            self._evict(next(iter(self._idle.values()), socket))

    def remove(self, socket: object) -> None:
        """Forget a socket that is closed. May be called more than once."""
        self._idle.pop(socket, None)
        name = self._open.pop(socket, "")
        if name:
            self._counts.give(name, 1)

    def replace(self, socket: object, upgraded: object) -> None:
        """Count `upgraded` instead of `socket`: the connection has become a WebSocket."""
        self._idle.pop(socket, None)
        if socket in self._open:
            self._open[upgraded] = self._open.pop(socket)

    def set_idle(self, socket: LimitedSocket, *, idle: bool) -> None:
        """Note whether a socket waits for a request."""
        self._idle.pop(socket, None)
        if idle and socket in self._open:
            self._idle[socket] = socket

    def _evict(self, socket: LimitedSocket) -> None:
        self._refused += 1
        self._on_refused()
        if self._refused.bit_count() == 1:  # 1, 2, 4, 8 …: a flood must not fill the log
            logger.warning("%d sockets were closed because there were too many (%d open)", self._refused, self.open)
        self.remove(socket)
        socket.evict()


def most_sockets() -> int:
    """Return the number of sockets that this process has file descriptors for."""
    try:
        import resource
    except ImportError:  # Windows
        return 1 << 16
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (min(soft, 1 << 20) - _open_descriptors() - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_SOCKET)


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # not Linux
        return 32

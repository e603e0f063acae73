"""What a front process knows of the other processes of its server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tympan.server.access.ledger_client import LedgerClient

METRICS_SECONDS = 5.0  # for the supervisor to answer


@dataclass(frozen=True)
class Front:
    """One of several front processes.

    Attributes:
        number: Its number, from 1.
        folder: Folder of the processes' sockets, which only their user can enter.
        ledger: Counts what all fronts have in use.
    """

    number: int
    folder: str
    ledger: LedgerClient

    @property
    def address(self) -> str:
        """The Unix socket on which this front serves the clients that another front passes to it."""
        return front_address(self.folder, self.number)

    @property
    def metrics_address(self) -> str:
        """The Unix socket on which the supervisor reads this front's metrics."""
        return metrics_address(self.folder, self.number)

    def owner_address(self, token: str) -> str:
        """Return the socket of the front that keeps the stream of a resume token; empty if it is this one."""
        number = token.partition(".")[0]
        is_other = number.isascii() and number.isdecimal() and int(number) != self.number
        return front_address(self.folder, int(number)) if is_other else ""

    async def metrics(self) -> bytes:
        """Return the metrics of the whole server.

        Raises:
            OSError: The supervisor does not answer.
        """
        async with asyncio.timeout(METRICS_SECONDS):
            return await read_all(metrics_address(self.folder, 0))


def front_address(folder: str, number: int) -> str:
    """Return the Unix socket on which a front serves the clients of other fronts."""
    return f"{folder}/front-{number}"


def metrics_address(folder: str, number: int) -> str:
    """Return the Unix socket that sends the metrics of a front, or, for number 0, of the whole server."""
    return f"{folder}/metrics-{number}"


def ledger_address(folder: str) -> str:
    """Return the Unix socket of the ledger."""
    return f"{folder}/ledger"


async def read_all(path: str) -> bytes:
    """Return what the process at the other end of a Unix socket sends until it closes it.

    Raises:
        OSError: There is no such process.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read()
    finally:
        writer.close()

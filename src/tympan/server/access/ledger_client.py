"""The connection of a front process to the ledger."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tympan.config import KeySettings
from tympan.errors import RestartingError
from tympan.server.access.ledger_wire import (
    SIZE_BYTES,
    Close,
    Exhausted,
    Give,
    KeyUse,
    Open,
    Refusal,
    Report,
    Request,
    Serving,
    Take,
    pack,
)

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 10.0  # after which the supervisor is taken for lost


class LedgerClient:
    """A front's connection to the ledger. Its methods wait for the answer.

    Attributes:
        error: Why the ledger cannot be used any more; empty while it can. The front then has to end.
    """

    def __init__(self, path: str) -> None:
        self.error = ""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(path)

    def set_serving(self, front: int) -> None:
        """Report that this front accepts clients."""
        self._send(Serving(front))

    def open(self, key: str, limits: KeySettings, streams: int) -> None:
        """Reserve streams of a key.

        Raises:
            QuotaError: The key has reached one of its limits.
            RestartingError: The supervisor does not answer.
        """
        refusal = self._ask(Open(key, limits, streams), Refusal | None)
        if refusal is not None:
            raise refusal.error

    def close(self, key: str, streams: int) -> None:
        """Release streams of a key."""
        self._send(Close(key, streams))

    def report(self, uses: Sequence[KeyUse]) -> list[Exhausted]:
        """Report what was received, and return which of these keys have reached a limit."""
        answer: list[Exhausted] = self._ask(Report(list(uses)), list[Exhausted])
        return answer

    def take(self, name: str, amount: int, most: int) -> int | None:
        """Add to a count, as `Counts.take` does.

        Raises:
            RestartingError: The supervisor does not answer.
        """
        used: int | None = self._ask(Take(name, amount, most), int | None)
        return used

    def give(self, name: str, amount: int) -> None:
        """Subtract from a count."""
        self._send(Give(name, amount))

    def _send(self, request: Request) -> bool:
        if not self.error:
            try:
                self._socket.sendall(pack(request))
            except OSError as error:
                self._fail(error)
        return not self.error

    def _ask(self, request: Request, kind: Any) -> Any:
        if self._send(request):
            try:
                return msgspec.msgpack.decode(self._read(int.from_bytes(self._read(SIZE_BYTES), "little")), type=kind)
            except OSError as error:
                self._fail(error)
        raise RestartingError(f"{self.error}; try again in a moment")

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionResetError("the connection was closed")
            data += part
        return data

    def _fail(self, error: OSError) -> None:
        self.error = "the supervisor of this process does not answer"
        logger.error("%s: %s", self.error, error)

"""What all front processes of a server count together: usage of keys, files at once, connections of an address.

The supervisor keeps the counts. A front asks for them on a Unix socket and waits for the answer, a fraction of a
millisecond, so that a limit holds exactly whichever fronts a client's streams are in. What a front has reserved is
released when its connection is closed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final, cast

import msgspec

from tympan.config import KeySettings
from tympan.errors import QuotaError
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
from tympan.server.access.quota import Account

_requests: Final = msgspec.msgpack.Decoder(Request)


class Counts:
    """Amounts by name, with limits."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()

    def take(self, name: str, amount: int, most: int) -> int | None:
        """Add `amount`, unless something is in use and the sum would exceed `most`.

        Returns:
            None if it was added, otherwise the amount in use.
        """
        used = self._used[name]
        if used and used + amount > most:
            return used
        self._used[name] = used + amount
        return None

    def give(self, name: str, amount: int) -> None:
        """Subtract what `take` has added."""
        self._used[name] -= amount
        if self._used[name] <= 0:
            del self._used[name]


class Ledger:
    """The counts, and the fronts that use them.

    Attributes:
        serving: Numbers of the fronts that accept clients.
        starts: How often each front has begun to accept clients.
        reports: Reports of each front so far; one that hangs sends none.
    """

    def __init__(self) -> None:
        self.serving: set[int] = set()
        self.starts: Counter[int] = Counter()
        self.reports: Counter[int] = Counter()
        self.counts = Counts()
        self._accounts: dict[str, Account] = {}
        self._changed = asyncio.Event()

    async def listen(self, path: str) -> asyncio.Server:
        """Serve fronts on a Unix socket."""
        return await asyncio.get_running_loop().create_unix_server(lambda: LedgerConnection(self), path)

    async def wait_for(self, fronts: int) -> None:
        """Wait until this many fronts accept clients."""
        while len(self.serving) < fronts:
            self._changed.clear()
            await self._changed.wait()

    def set_serving(self, front: int) -> None:
        """Note that a front accepts clients."""
        self.serving.add(front)
        self.starts[front] += 1
        self._changed.set()

    def account(self, key: str, limits: KeySettings) -> Account:
        """Return the account of a key, with its present limits."""
        account = self._accounts.setdefault(key, Account(limits))
        account.limits = limits
        return account

    def close(self, key: str, streams: int) -> None:
        """Release streams of a key."""
        self._accounts[key].release(streams)

    def count(self, uses: Iterable[KeyUse]) -> list[Exhausted]:
        """Add a front's use, and return which of these keys have reached a limit."""
        now = asyncio.get_running_loop().time()
        exhausted = []
        for use in uses:
            account = self.account(use.key, use.limits)
            account.add_audio(use.audio_seconds, now)
            account.add_file_bytes(use.file_bytes, now)
            audio, files = Refusal.of(account.audio_error(now)), Refusal.of(account.file_error(now))
            if audio is not None or files is not None:
                exhausted.append(Exhausted(use.key, audio, files))
        return exhausted


class LedgerConnection(asyncio.Protocol):
    """The connection of one front."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._front = 0
        self._buffer = bytearray()
        self._streams: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Release what the front has reserved."""
        self._ledger.serving.discard(self._front)
        for key, streams in self._streams.items():
            self._ledger.close(key, streams)
        for name, amount in self._taken.items():
            self._ledger.counts.give(name, amount)

    def data_received(self, data: bytes) -> None:
        """Answer requests."""
        self._buffer += data
        while len(self._buffer) >= SIZE_BYTES:
            end = SIZE_BYTES + int.from_bytes(self._buffer[:SIZE_BYTES], "little")
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[SIZE_BYTES:end])
            del self._buffer[:end]
            self._handle(_requests.decode(body))

    def _handle(self, request: Request) -> None:
        ledger = self._ledger
        match request:
            case Serving():
                self._front = request.front
                ledger.set_serving(request.front)
            case Open():
                self._answer(Refusal.of(self._open(request)))
            case Close():
                self._streams[request.key] -= request.streams
                ledger.close(request.key, request.streams)
            case Report():
                ledger.reports[self._front] += 1
                self._answer(ledger.count(request.keys))
            case Take():
                used = ledger.counts.take(request.name, request.amount, request.most)
                if used is None:
                    self._taken[request.name] += request.amount
                self._answer(used)
            case Give():
                self._taken[request.name] -= request.amount
                ledger.counts.give(request.name, request.amount)

    def _open(self, request: Open) -> QuotaError | None:
        account = self._ledger.account(request.key, request.limits)
        try:
            account.reserve(request.streams, asyncio.get_running_loop().time())
        except QuotaError as error:
            return error
        self._streams[request.key] += request.streams
        return None

    def _answer(self, answer: object) -> None:
        self._transport.write(pack(answer))

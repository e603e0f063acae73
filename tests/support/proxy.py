"""A TCP proxy that cuts or stalls connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards TCP connections to `port`.

    Attributes:
        flowing: An event; while it is not set, no data passes.
        is_up: While false, new connections are cut at once.
        connections: Number of connections so far.
    """

    def __init__(self, port: int, budgets: Iterable[int] = (), half_open: bool = False) -> None:
        """Set the faults.

        Args:
            port: Local port to forward to.
            budgets: Bytes in both directions after which each connection is cut; later ones are not cut.
            half_open: Cut only the client's side.
        """
        self._target = port
        self._budgets = list(budgets)
        self._half_open = half_open
        self._open: set[_Link] = set()
        self._closing = asyncio.Event()
        self.connections = 0
        self.is_up = True
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.close()
        self.cut()
        while self._open:
            await asyncio.sleep(0.01)

    def cut(self) -> None:
        """Cut all connections."""
        for link in self._open:
            link.cut.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self.is_up:
            writer.transport.abort()
            return
        link = _Link(self._budgets.pop(0) if self._budgets else None, self.flowing)
        self._open.add(link)
        answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        up = asyncio.create_task(link.pump(reader, server))
        down = asyncio.create_task(link.pump(answers, writer))
        cut = asyncio.create_task(link.cut.wait())
        await asyncio.wait((up, down, cut), return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down, cut):
            task.cancel()
        if link.cut.is_set():
            writer.transport.abort()
            if self._half_open:
                await self._closing.wait()
            server.transport.abort()
        else:
            for end in (writer, server):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
        self._open.discard(link)


class _Link:
    def __init__(self, budget: int | None, flowing: asyncio.Event) -> None:
        self._left = budget
        self._flowing = flowing
        self.cut = asyncio.Event()

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 14):
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
                if self._left == 0:
                    self.cut.set()
                    await asyncio.Event().wait()

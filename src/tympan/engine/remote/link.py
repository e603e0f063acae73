"""The server's side of the connection to one engine process, started here or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from tympan.engine.base import EngineInfo, StepReport
from tympan.engine.remote.wire import (
    Kind,
    Messages,
    Others,
    Refused,
    Started,
    StartFailed,
    Starting,
    Step,
    error_of,
    item,
    unpack_event,
)
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Progress

RECONNECT_SECONDS = 0.05  # between two attempts to reach a process that is being started


class LinkListener(Protocol):
    """What a link reports to its engine."""

    def on_ready(self, process: EngineLink) -> None:
        """Give streams to the process."""

    def on_lost(self, process: EngineLink) -> None:
        """Move the streams of the process, which is gone; it is restarted unless its `fatal_error` is set."""

    def on_refused(self, stream: int) -> None:
        """Handle that the process has no room for a stream."""

    def on_room(self, process: EngineLink) -> None:
        """Give waiting streams to the process: the number of streams of its other servers has changed."""

    def on_events(self, stream: int, events: Sequence[EngineEvent]) -> None:
        """Handle the events of a stream."""

    def on_step(self, report: StepReport) -> None:
        """Handle the report of a step, after its events."""


class EngineLink(asyncio.Protocol):
    """The connection to one process: sends items, and passes messages to the listener.

    Args:
        number: Number of the process in the log.
        listener: The engine.

    Attributes:
        ready: Whether the process takes streams.
        stage: Stage of its start.
        info: Description of its engine, after the first start.
        capacity: Streams that it carries.
        active: Streams that it has of this server; the engine counts them.
        others: Streams that it has of other servers.
        start_seconds: Seconds that each stage of its start took.
        fatal_error: Why it is not started again; empty while it is.
    """

    info: EngineInfo

    def __init__(self, number: int, listener: LinkListener) -> None:
        self.ready = False
        self.stage = ""
        self.capacity = self.active = self.others = 0
        self.start_seconds: Mapping[str, float] = {}
        self.fatal_error = ""
        self._number = number
        self._listener = listener
        self._received = 0  # reads from the socket that had messages
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes | memoryview] = []
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait until the process takes streams."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def check(self, longest_seconds: int) -> None:
        """Look for a process that hangs; called about once a second."""

    @property
    def free(self) -> int:
        """Streams that it can take."""
        return self.capacity - self.active - self.others if self.ready else 0

    def close(self, stream: int) -> None:
        """Close a stream."""
        self.send(item(stream, Kind.CLOSE))

    def send(self, *items: bytes | memoryview) -> None:
        """Send items together with all others of this iteration of the event loop."""
        if not self._outgoing:
            self._loop.call_soon(self._write)
        self._outgoing += items

    def _write(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None:
            self._transport.write(b"".join(outgoing))

    def _begin(self) -> None:
        """Expect the messages of a new connection."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._messages = Messages()
        self.others = 0

    def _disconnect(self) -> None:
        self.ready = False
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # --- calls of the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end of the process."""
        self._transport = None  # uvloop raises an error where asyncio ignores a write
        if not self._started.done():
            self._started.set_exception(EngineError(f"engine process {self._number} ended while it started"))
            return
        if not self._lost.done() and not self._stopping:
            self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Handle the messages of the process."""
        self._received += 1
        for message in self._messages.feed(data):
            match message:
                case Step():
                    for stream, packed in message.events:
                        if isinstance(packed, Progress):
                            self._listener.on_events(stream, (packed,))
                        else:
                            self._listener.on_events(stream, [unpack_event(event) for event in packed])
                    if message.report is not None:
                        self._listener.on_step(message.report)
                case Refused():
                    self._listener.on_refused(message.stream)
                case Others():
                    self.others = message.streams
                    self._listener.on_room(self)
                case Starting():
                    self.stage = message.stage
                case Started():
                    self.info, self.capacity = message.info, message.capacity
                    self.others = message.others
                    self.start_seconds, self.stage = message.start_seconds, ""
                    self.ready = True
                    self._started.set_result(None)
                    self._listener.on_ready(self)
                case StartFailed():
                    self._started.set_exception(error_of(message.code, message.message))


class EngineConnection(EngineLink):
    """The connection of a front process to an engine process, which the supervisor starts and restarts.

    Args:
        number: Number of the process in the log.
        path: The Unix socket of the process.
        listener: The engine.
    """

    def __init__(self, number: int, path: str, listener: LinkListener) -> None:
        super().__init__(number, listener)
        self._path = path

    async def start(self) -> None:
        """Wait until the process is reached; there is no limit, as a model may be downloaded first."""
        await self._connect()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Close the connection."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
        self._disconnect()

    async def _connect(self) -> None:
        while True:
            self._begin()
            try:
                await self._loop.create_unix_connection(lambda: self, self._path)
                await self._started
                return
            except (OSError, EngineError):
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _run(self) -> None:
        """Connect again whenever the process is lost."""
        while True:
            await self._lost
            self._disconnect()
            self._listener.on_lost(self)
            await self._connect()

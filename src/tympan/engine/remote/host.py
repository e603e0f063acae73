"""The engine's side: serves an engine of this process to the servers at the other ends of sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from tympan.engine.base import Engine, EngineStream, StepReport
from tympan.engine.remote.wire import (
    Items,
    Kind,
    Message,
    Others,
    Refused,
    Started,
    StartFailed,
    Starting,
    Step,
    frame_of,
    pack_events,
    pack_message,
)
from tympan.errors import CapacityError, EngineError, TympanError
from tympan.messages import EngineEvent, Failed, Finished, Pcm, Progress

logger = logging.getLogger(__name__)

ALIVE_SECONDS = 0.5  # between two messages that say so
_FRAMES = (int(Kind.INTEGERS), int(Kind.FLOATS))


class EngineHost:
    """Serves one engine until the process that has started this one closes its socket.

    An engine that fails ends this process: the servers, which keep the audio, go on with another one and lose no word.

    Args:
        make_engine: Returns the engine, not started.
        longest_seconds: Time without progress after which the engine is taken for hung.
        end: Ends this process.
        path: A Unix socket for further servers, once the engine is started; empty for none.

    Attributes:
        engine: The engine.
        is_started: Whether it takes streams.
    """

    engine: Engine

    def __init__(
        self, make_engine: Callable[[], Engine], longest_seconds: int, end: Callable[[], None], path: str = ""
    ) -> None:
        self._make_engine = make_engine
        self._longest_seconds = longest_seconds
        self._end = end
        self._path = path
        self.is_started = False
        self._connections: list[HostConnection] = []
        self._count_has_changed = False

    async def serve(self, connected: socket.socket) -> None:
        """Start the engine and serve it."""
        self._loop = asyncio.get_running_loop()
        connected.setblocking(False)
        self._owner = owner = HostConnection(self)  # of the process that has started this one
        await self._loop.create_connection(lambda: owner, sock=connected)
        try:
            self.engine = self._make_engine()
            alive = asyncio.create_task(self._report())
            await self.engine.start()
        except TympanError as error:
            owner.send(StartFailed(error.code, str(error)))
            return
        self.is_started = True
        self.engine.observe = self._on_step
        owner.send(self.describe(owner))
        if self._path:
            self._server = await self._loop.create_unix_server(lambda: HostConnection(self), self._path)
        await owner.closed
        alive.cancel()
        await self.engine.stop()

    def describe(self, connection: HostConnection) -> Started:
        """Return the first message of the started engine on a connection."""
        engine = self.engine
        return Started(engine.info, engine.capacity, dict(engine.start_seconds), self._others(connection))

    def add(self, connection: HostConnection) -> None:
        """Serve a connection."""
        self._connections.append(connection)

    def remove(self, connection: HostConnection) -> None:
        """Forget a connection that is closed."""
        if not self.is_started:  # a start cannot be interrupted
            self._end()
        self._connections.remove(connection)
        self.count_changed()

    def count_changed(self) -> None:
        """Tell all servers, once this iteration of the event loop is over, how many streams the others have."""
        if not self._count_has_changed and len(self._connections) > 1:
            self._count_has_changed = True
            self._loop.call_soon(self._send_counts)

    def check_failure(self, error: Exception) -> None:
        """End this process, before a stream learns of the error, if the engine has failed."""
        if not self.engine.ready and not self._owner.closed.done():
            self.die(repr(error))

    def die(self, error: object) -> None:
        """End this process."""
        logger.critical("the engine process ends: %s", error)
        self._end()

    def _others(self, connection: HostConnection) -> int:
        return sum(each.count for each in self._connections if each is not connection)

    def _send_counts(self) -> None:
        self._count_has_changed = False
        for connection in self._connections:
            connection.send_others(self._others(connection))

    async def _report(self) -> None:
        """Tell the servers that this process is alive, and end it if the engine is not."""
        checked = self._loop.time()
        while True:
            for connection in self._connections:
                connection.send(Starting(self.engine.stage))
            await asyncio.sleep(ALIVE_SECONDS)
            if self.is_started and self._loop.time() - checked >= 1:
                checked = self._loop.time()
                error = self.engine.check(self._longest_seconds) if self.engine.ready else "the engine has failed"
                if error:
                    self.die(error)

    def _on_step(self, report: StepReport) -> None:
        """Send the events of a step at once; one server counts the step."""
        for connection in self._connections:
            connection.flush_events(report if connection is self._owner else None)


class HostConnection(asyncio.Protocol):
    """The connection of one server, with its streams.

    Attributes:
        closed: Done when the server has closed the connection.
    """

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._streams: dict[int, EngineStream] = {}
        self._partial_frames: dict[int, Pcm] = {}
        self._items = Items()
        self._events: list[tuple[int, Progress | list[list[Any]]]] = []
        self._sent_others = 0

    @property
    def count(self) -> int:
        """Streams of this server."""
        return len(self._streams)

    def send(self, message: Message) -> None:
        """Send a message."""
        self._transport.write(pack_message(message))

    def send_others(self, count: int) -> None:
        """Send the number of streams of other servers, if it has changed."""
        if count != self._sent_others:
            self._sent_others = count
            self.send(Others(count))

    def flush_events(self, report: StepReport | None = None) -> None:
        """Send the events that wait."""
        events, self._events = self._events, []
        if events or report is not None:
            self.send(Step(events, report))

    def _deliver(self, stream: int, events: Sequence[EngineEvent]) -> None:
        if not events:
            return
        last = events[-1]
        if isinstance(last, Failed):
            self._host.check_failure(last.error)
        if isinstance(last, Failed | Finished):
            self._streams.pop(stream, None)
            self._host.count_changed()
        if not self._events:
            self._loop.call_soon(self.flush_events)
        self._events.append((stream, pack_events(events)))

    # --- calls of the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Describe the engine, if it is started."""
        self._transport = cast(asyncio.Transport, transport)
        self._host.add(self)
        if self._host.is_started:
            started = self._host.describe(self)
            self._sent_others = started.others
            self.send(started)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the streams of the server, which is gone."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.close()
        self.closed.set_result(None)
        self._host.remove(self)

    def data_received(self, data: bytes) -> None:
        """Pass the items of the server to their streams."""
        for number, kind, payload in self._items.feed(data):
            stream = self._streams.get(number)
            if kind == Kind.OPEN:
                self._open(number, live=payload[0] != 0)
            elif stream is None:
                continue  # it has ended, or was refused
            elif kind in _FRAMES:
                stream.push(frame_of(kind, payload))
            elif kind in (Kind.PARTIAL_INTEGERS, Kind.PARTIAL_FLOATS):
                self._partial_frames[number] = frame_of(kind, payload)
            elif kind == Kind.FLUSH:
                stream.flush(int.from_bytes(payload, "little"), self._partial_frames.pop(number, None))
            elif kind == Kind.FINISH:
                stream.finish()
            else:
                del self._streams[number]
                stream.close()
                self._host.count_changed()

    def _open(self, number: int, *, live: bool) -> None:
        try:
            self._streams[number] = self._host.engine.open(lambda events: self._deliver(number, events), live=live)
            self._host.count_changed()
        except CapacityError:
            self.send(Refused(number))
        except EngineError as error:
            self._host.die(error)

"""The engine's side: serves an engine of this process to the server at the other end of a socket."""

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
    Refused,
    Started,
    StartFailed,
    Starting,
    Step,
    frame_of,
    pack_event,
    pack_message,
)
from tympan.errors import CapacityError, EngineError, TympanError
from tympan.messages import EngineEvent, Failed, Finished, Pcm

logger = logging.getLogger(__name__)

ALIVE_SECONDS = 0.5  # between two messages that say so


class EngineHost(asyncio.Protocol):
    """Serves one engine until the server closes the socket.

    An engine that fails ends this process: the server, which keeps the audio, starts another one and loses no word.

    Args:
        make_engine: Returns the engine, not started.
        longest_seconds: Time without progress after which the engine is taken for hung.
        end: Ends this process.
    """

    _engine: Engine

    def __init__(self, make_engine: Callable[[], Engine], longest_seconds: int, end: Callable[[], None]) -> None:
        self._make_engine = make_engine
        self._longest_seconds = longest_seconds
        self._end = end
        self._is_started = False
        self._streams: dict[int, EngineStream] = {}
        self._partial_frames: dict[int, Pcm] = {}
        self._items = Items()
        self._events: list[tuple[int, list[list[Any]]]] = []

    async def serve(self, connected: socket.socket) -> None:
        """Start the engine and serve it."""
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        connected.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=connected)
        try:
            self._engine = self._make_engine()
            alive = asyncio.create_task(self._report())
            await self._engine.start()
        except TympanError as error:
            self._send(StartFailed(error.code, str(error)))
            return
        self._is_started = True
        self._engine.observe = self._on_step
        info = self._engine.info
        self._send(Started(info, self._engine.capacity, dict(self._engine.start_seconds)))
        await self._closed
        alive.cancel()
        await self._engine.stop()

    async def _report(self) -> None:
        """Tell the server that this process is alive, and end it if the engine is not."""
        checked = self._loop.time()
        while True:
            self._send(Starting(self._engine.stage))
            await asyncio.sleep(ALIVE_SECONDS)
            if self._is_started and self._loop.time() - checked >= 1:
                checked = self._loop.time()
                error = self._engine.check(self._longest_seconds) if self._engine.ready else "the engine has failed"
                if error:
                    self._die(error)

    def _send(self, message: Starting | Started | StartFailed | Refused | Step) -> None:
        self._transport.write(pack_message(message))

    def _die(self, error: object) -> None:
        """End this process before a stream learns of the error."""
        logger.critical("the engine process ends: %s", error)
        self._end()

    # --- events of the engine ------------------------------------------------------------------------------------

    def _deliver(self, stream: int, events: Sequence[EngineEvent]) -> None:
        if not events:
            return
        last = events[-1]
        if isinstance(last, Failed) and not self._engine.ready and not self._closed.done():
            self._die(repr(last.error))
        if isinstance(last, Failed | Finished):
            self._streams.pop(stream, None)
        if not self._events:
            self._loop.call_soon(self._flush_events)
        self._events.append((stream, [pack_event(event) for event in events]))

    def _flush_events(self, report: StepReport | None = None) -> None:
        events, self._events = self._events, []
        if events or report is not None:
            self._send(Step(events, report))

    def _on_step(self, report: StepReport) -> None:
        self._flush_events(report)

    # --- calls of the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End: the server is gone or has closed the socket."""
        if not self._is_started:  # a start cannot be interrupted
            self._end()
        self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Pass the items of the server to their streams."""
        for number, kind, payload in self._items.feed(data):
            if kind == Kind.OPEN:
                self._open(number, live=payload != b"\0")
                continue
            stream = self._streams.get(number)
            if stream is None:
                continue  # it has ended, or was refused
            if kind in (Kind.INTEGERS, Kind.FLOATS):
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

    def _open(self, number: int, *, live: bool) -> None:
        try:
            self._streams[number] = self._engine.open(lambda events: self._deliver(number, events), live=live)
        except CapacityError:
            self._send(Refused(number))
        except EngineError as error:
            self._die(error)

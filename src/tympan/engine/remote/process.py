"""The server's side of one engine process: its start, its socket, and its restart."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from tympan.config import child_environment
from tympan.engine.base import EngineInfo, StepReport
from tympan.engine.batching.restarts import MAX_RESTARTS, RestartPolicy
from tympan.engine.batching.watchdog import Watchdog
from tympan.engine.remote.wire import (
    Kind,
    Messages,
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
from tympan.messages import EngineEvent

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0  # for a process to end after its socket was closed


class ProcessListener(Protocol):
    """What a process reports to its engine."""

    def on_ready(self, process: EngineProcess) -> None:
        """Give streams to the process."""

    def on_lost(self, process: EngineProcess) -> None:
        """Move the streams of the process, which is gone; it is restarted unless its `fatal_error` is set."""

    def on_refused(self, process: EngineProcess, stream: int) -> None:
        """Fail a stream that the process has no room for."""

    def on_events(self, process: EngineProcess, stream: int, events: Sequence[EngineEvent]) -> None:
        """Handle the events of a stream."""

    def on_step(self, report: StepReport) -> None:
        """Handle the report of a step, after its events."""


class EngineProcess(asyncio.Protocol):
    """Starts a process, and again whenever it ends.

    Args:
        number: Number of the process in the log.
        command: Arguments of the Python interpreter.
        listener: The engine.
        environment: Additional environment variables.

    Attributes:
        ready: Whether it takes streams.
        stage: Stage of its start.
        info: Description of its engine, after the first start.
        capacity: Streams that it carries.
        active: Streams that it has; the engine counts them.
        start_seconds: Seconds that each stage of its start took.
        fatal_error: Why it is not started again; empty while it is.
    """

    info: EngineInfo

    def __init__(
        self, number: int, command: Sequence[str], listener: ProcessListener, environment: Mapping[str, str]
    ) -> None:
        self.ready = False
        self.stage = ""
        self.capacity = 0
        self.active = 0
        self.start_seconds: Mapping[str, float] = {}
        self.fatal_error = ""
        self._number = number
        self._command = command
        self._listener = listener
        self._environment = environment
        self._restarts = RestartPolicy()
        self._watchdog = Watchdog()
        self._heard = 0  # messages so far
        self._process: Process | None = None
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until its engine takes streams.

        Raises:
            TympanError: The engine cannot be started.
        """
        self._loop = asyncio.get_running_loop()
        await self._spawn()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the process."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
        await self._end_process(STOP_SECONDS)

    def check(self, longest_seconds: int) -> None:
        """Kill a process that has sent nothing for `longest_seconds`; called about once a second."""
        if self.ready and self._watchdog.stalled_checks(self._heard) >= longest_seconds:
            logger.error("engine process %d has not answered for %d s and is killed", self._number, longest_seconds)
            self.kill()

    def kill(self) -> None:
        """Kill the process; it is restarted."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    @property
    def free(self) -> int:
        """Streams that it can take."""
        return self.capacity - self.active if self.ready else 0

    def close(self, stream: int) -> None:
        """Close a stream."""
        self.send(item(stream, Kind.CLOSE))

    def send(self, *items: bytes) -> None:
        """Send items together with all others of this iteration of the event loop."""
        if not self._outgoing:
            self._loop.call_soon(self._write)
        self._outgoing += items

    def _write(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None:
            self._transport.write(b"".join(outgoing))

    # --- the process ---------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                stdin=theirs.fileno(),
                env=child_environment(**self._environment),
                start_new_session=True,  # a signal to the server's group must not end streams that drain
            )
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._messages = Messages()
        ours.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=ours)
        await self._started
        self._running_since = self._loop.time()

    async def _run(self) -> None:
        """Wait for the end of the process, and start it again."""
        while True:
            await self._lost
            was_ready, self.ready = self.ready, False
            code = await self._end_process(0.0)
            seconds = self._loop.time() - self._running_since if was_ready else 0.0
            delay = self._restarts.next_delay(seconds)
            if delay is None:
                self.fatal_error = f"engine process {self._number} failed again after {MAX_RESTARTS} restarts in a row"
            logger.error("engine process %d ended with %s; its streams are moved", self._number, code)
            self._listener.on_lost(self)
            if delay is None:
                return
            if not was_ready:  # at once after a run: its streams wait
                await asyncio.sleep(delay)
            try:
                await self._spawn()
            except Exception as error:
                logger.error("engine process %d did not start: %s", self._number, error)
                if not self._lost.done():
                    self._lost.set_result(None)

    async def _end_process(self, seconds: float) -> int | None:
        """Close the socket, wait for the process to end, kill it after `seconds`, and return its exit code."""
        self.ready = False
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._process is None:
            return None
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    # --- calls of the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end of the process."""
        if not self._started.done():
            self._started.set_exception(EngineError(f"engine process {self._number} ended while it started"))
            return
        if not self._lost.done() and not self._stopping:
            self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Handle the messages of the process."""
        self._heard += 1
        for message in self._messages.feed(data):
            match message:
                case Step():
                    for stream, events in message.events:
                        self._listener.on_events(self, stream, [unpack_event(event) for event in events])
                    if message.report is not None:
                        self._listener.on_step(message.report)
                case Refused():
                    self._listener.on_refused(self, message.stream)
                case Starting():
                    self.stage = message.stage
                case Started():
                    self.info, self.capacity = message.info, message.capacity
                    self.start_seconds, self.stage = message.start_seconds, ""
                    self.ready = True
                    self._started.set_result(None)
                    self._listener.on_ready(self)
                case StartFailed():
                    self._started.set_exception(error_of(message.code, message.message))

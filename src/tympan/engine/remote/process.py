"""An engine process that this process has started: its start, and its restart."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence

from tympan.config import child_environment
from tympan.engine.batching.restarts import MAX_RESTARTS, RestartPolicy
from tympan.engine.batching.watchdog import Watchdog
from tympan.engine.remote.link import EngineLink, LinkListener

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0  # for a process to end after its socket was closed


class EngineProcess(EngineLink):
    """Starts a process, and again whenever it ends.

    Args:
        number: Number of the process in the log.
        command: Arguments of the Python interpreter.
        listener: The engine.
        environment: Additional environment variables.
    """

    def __init__(
        self, number: int, command: Sequence[str], listener: LinkListener, environment: Mapping[str, str]
    ) -> None:
        super().__init__(number, listener)
        self._command = command
        self._environment = environment
        self._restarts = RestartPolicy()
        self._watchdog = Watchdog()
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process and wait until its engine takes streams.

        Raises:
            TympanError: The engine cannot be started.
        """
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
        if self.ready and self._watchdog.stalled_checks(self._received) >= longest_seconds:
            logger.error("engine process %d has not answered for %d s and is killed", self._number, longest_seconds)
            self.kill()

    def kill(self) -> None:
        """Kill the process; it is restarted."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    # --- the process ---------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        self._begin()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                stdin=theirs.fileno(),
                env=child_environment(**self._environment),
                start_new_session=True,  # a signal to the server's group must not end streams that drain
            )
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
        self._disconnect()
        if self._process is None:
            return None
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

"""The supervisor's side of one front process: its start, and its restart."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from socket import socket

import msgspec

from tympan.config import Config, child_environment
from tympan.engine.batching.restarts import MAX_RESTARTS, RestartPolicy
from tympan.engine.batching.watchdog import Watchdog
from tympan.errors import ConfigError
from tympan.server.access.ledger import Ledger
from tympan.server.fronts.front import FAILED_TO_START, Specification

logger = logging.getLogger(__name__)

HANG_SECONDS = 30  # without a report, after which a front is killed


class FrontProcess:
    """Starts a front process, and again whenever it ends.

    Args:
        number: Its number, from 1.
        config: All settings.
        folder: Folder of the processes' sockets.
        make_listener: Returns the socket to accept clients from, for one process.
        ledger: Knows which fronts accept clients.
        on_end: Called when the process has ended.
    """

    def __init__(
        self,
        number: int,
        config: Config,
        folder: str,
        make_listener: Callable[[], socket],
        ledger: Ledger,
        on_end: Callable[[int], None],
    ) -> None:
        self.number = number
        self._config = config
        self._folder = folder
        self._make_listener = make_listener
        self._ledger = ledger
        self._on_end = on_end
        self._restarts = RestartPolicy()
        self._watchdog = Watchdog()
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> str:
        """Run the process until it is stopped.

        Returns:
            Why it is not started again; empty after `stop`.

        Raises:
            ConfigError: It cannot be started at all.
        """
        loop = asyncio.get_running_loop()
        while True:
            starts = self._ledger.starts[self.number]
            process = await self._spawn()
            began = loop.time()
            code = await process.wait()
            self._ledger.serving.discard(self.number)
            self._on_end(self.number)
            if self._stopping.is_set():
                return ""
            if code == FAILED_TO_START and not self._ledger.starts[self.number]:
                raise ConfigError(f"front process {self.number} cannot be started: its last line in the log says why")
            has_served = self._ledger.starts[self.number] > starts
            delay = self._restarts.next_delay(loop.time() - began if has_served else 0.0)
            if delay is None:
                return f"front process {self.number} failed again after {MAX_RESTARTS} restarts in a row"
            logger.error("front process %d ended with %s and is restarted in %g s", self.number, code, delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                return ""

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Let the process end its streams; at a second call, without waiting for them."""
        self._stopping.set()
        if self.number not in self._ledger.serving:
            self.kill()
        elif self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"\n")

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def check(self) -> None:
        """Kill a process that hangs; it is restarted. Called about once a second."""
        reports = self._ledger.reports[self.number] if self.number in self._ledger.serving else None
        if self._watchdog.stalled_checks(reports) >= HANG_SECONDS:
            logger.error("front process %d has not answered for %d s and is killed", self.number, HANG_SECONDS)
            self.kill()

    async def _spawn(self) -> Process:
        with self._make_listener() as listener:
            specification = Specification(self.number, self._config, self._folder, listener.fileno())
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tympan.server.fronts.front",
                stdin=PIPE,
                pass_fds=(listener.fileno(),),
                env=child_environment(),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(specification) + b"\n")  # and keep it open
        return self._process

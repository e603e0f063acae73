"""The supervisor of several front processes: starts, restarts and stops them and the engine processes.

It answers on the port until the fronts do, and keeps what the fronts count together. It serves no client, so its event
loop is free to answer the fronts at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from shutil import rmtree
from signal import Signals
from socket import socket
from typing import Any

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest

from tympan.config import Config
from tympan.engine.remote.engine import RemoteEngine
from tympan.errors import ConfigError
from tympan.server.access.front import ledger_address, metrics_address, read_all
from tympan.server.access.ledger import Ledger
from tympan.server.access.start_checks import read_token_secret
from tympan.server.engine_process import make_remote_engine, start_engine
from tympan.server.fronts.folder import socket_folder
from tympan.server.fronts.process import FrontProcess
from tympan.server.listen.listener import bind_shared, listen_shared
from tympan.server.listen.startup import StartupServer
from tympan.server.observability.merged_metrics import MergedMetrics
from tympan.server.observability.metrics import StepMetrics
from tympan.server.signals import StopSignals, end_process, end_server

logger = logging.getLogger(__name__)

CHECK_EVERY_SECONDS = 1.0
METRICS_SECONDS = 2.0  # for a front to send its metrics
STOP_SECONDS = 15.0  # for a front to end, besides the times of its settings
OWN_NUMBER = 0  # of the supervisor among the fronts


async def supervise(config: Config, signals: StopSignals) -> None:
    """Serve in several processes until a signal arrives or a fatal error requires a restart, then end the process.

    Raises:
        ConfigError: The settings do not allow several front processes, or the address is in use.
        ModelError: The model cannot be loaded.
    """
    if sys.platform == "win32":
        raise ConfigError("several front processes need Unix sockets: set fronts to 1 on Windows")
    with socket_folder() as folder:
        signals.forward(partial(_end_before_serving, folder, signals))
        engine = make_remote_engine(config, folder)
        listener, make_listener = listen_shared(config.server)
        with listener:
            config = _settings_of_fronts(config, listener)
            supervisor = Supervisor(config, folder, engine, _first(listener, make_listener))
            try:
                fatal_error = await supervisor.run(listener, signals)
            finally:
                await supervisor.end()
    end_server(fatal_error, signals)


class Supervisor:
    """The engine processes and the front processes of a server.

    Args:
        config: All settings of the fronts.
        folder: Folder of the processes' sockets.
        engine: The engine processes.
        make_listener: Returns the socket to accept clients from, for one front.
    """

    def __init__(self, config: Config, folder: str, engine: RemoteEngine, make_listener: Callable[[], socket]) -> None:
        self._config = config
        self._folder = folder
        self._engine = engine
        self._ledger = Ledger()
        self._metrics = MergedMetrics()
        self._registry = CollectorRegistry()
        engine.observe = StepMetrics(self._registry, engine).observe
        self._fronts = [
            FrontProcess(number, config, folder, make_listener, self._ledger, self._metrics.end)
            for number in range(1, config.server.fronts + 1)
        ]
        self._runs: list[asyncio.Task[str]] = []

    async def run(self, listener: socket, signals: StopSignals) -> str:
        """Serve until a signal arrives, and return the fatal error that requires a restart; empty after a signal.

        Args:
            listener: The socket on which the supervisor answers until the fronts do.
            signals: The signals.

        Raises:
            ConfigError: A front cannot be started.
            ModelError: The model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        self._servers = [
            await self._ledger.listen(ledger_address(self._folder)),
            await asyncio.start_unix_server(self._send_metrics, metrics_address(self._folder, OWN_NUMBER)),
        ]
        async with StartupServer(listener, self._config.server, self._engine):
            self._runs = [loop.create_task(front.run()) for front in self._fronts]
            await self._wait(start_engine(self._engine))
            await self._wait(self._ledger.wait_for(len(self._fronts)))
        listener.close()
        logger.info("%d front processes serve clients", len(self._fronts))
        signals.forward(self.stop)
        while not self._has_ended:
            running = [run for run in self._runs if not run.done()]
            await asyncio.wait(running, timeout=CHECK_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for front in self._fronts:
                front.check()
            if fatal_error := self._engine.check(self._config.limits.engine_seconds):
                return fatal_error
        return next(filter(None, (run.result() for run in self._runs if run.done())), "")

    def stop(self) -> None:
        """Let the fronts end their streams; at a second call, without waiting for them."""
        for front in self._fronts:
            front.stop()

    async def end(self) -> None:
        """End all processes: the fronts, then the engine."""
        if not all(front.is_stopping for front in self._fronts):
            self.stop()
        limits = self._config.limits
        if self._runs:
            await asyncio.wait(self._runs, timeout=limits.drain_delay_seconds + limits.grace_seconds + STOP_SECONDS)
        for front in self._fronts:
            front.kill()
        await self._engine.stop()

    @property
    def _has_ended(self) -> bool:
        """Whether all fronts have ended after a signal, or one of them cannot be started again."""
        return all(run.done() for run in self._runs) or any(run.done() and run.result() for run in self._runs)

    async def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for a part of the start, or for a front that cannot be started."""
        part = asyncio.create_task(work)
        tasks: list[asyncio.Task[Any]] = [part, *self._runs]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for run in self._runs:
            if run.done():
                part.cancel()
                raise ConfigError(run.result())
        await part

    async def _send_metrics(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the metrics of all processes."""
        self._metrics.update(OWN_NUMBER, generate_latest(self._registry).decode())
        await asyncio.gather(*(self._read_metrics(number) for number in list(self._ledger.serving)))
        writer.write(self._metrics.render())
        writer.close()

    async def _read_metrics(self, number: int) -> None:
        """Read the metrics of a front; if it does not answer, the last known ones count."""
        with suppress(OSError):
            async with asyncio.timeout(METRICS_SECONDS):
                text = await read_all(metrics_address(self._folder, number))
            if text and number in self._ledger.serving:
                self._metrics.update(number, text.decode())


def _end_before_serving(folder: str, signals: StopSignals) -> None:
    """End at once, with all children: there are no streams yet, and the load of a model cannot be interrupted."""
    logger.info("%s: the process ends before it has served", Signals(signals.received).name)
    rmtree(folder, ignore_errors=True)
    end_process(signals.received)


def _settings_of_fronts(config: Config, listener: socket) -> Config:
    """Return the settings with what the fronts have to share: the ports, and the secret that signs tokens."""
    server = replace(config.server, port=listener.getsockname()[1])
    if not read_token_secret(server):
        server = replace(server, token_secret=secrets.token_hex())
    if server.wyoming_port is not None:
        with bind_shared(server.wyoming_host, server.wyoming_port) as bound:
            server = replace(server, wyoming_port=bound.getsockname()[1])
    return replace(config, server=server)


def _first(listener: socket, make_listener: Callable[[], socket]) -> Callable[[], socket]:
    """Return a function that gives the listener to the first front, so that no connection is lost, then others."""
    first = [listener.dup()]
    return lambda: first.pop() if first else make_listener()

"""The service for a platform that calls hooks and may take a snapshot of the process between two of them."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Final

from tympan.config import Config
from tympan.engine.base import Engine
from tympan.errors import EngineError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tympan.server.runner import Runner

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.02


class Host:
    """One engine, for whoever serves it. What `load` makes may be in a snapshot, and so in many containers."""

    engine: Engine

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self) -> None:
        """Imports, and the weights into memory if a snapshot is to hold them: no device, no sockets, no ids, no clocks.

        Raises `ModelError`.
        """
        from tympan.engine.registry import create_engine
        from tympan.server import app, runner  # noqa: F401  # tens of thousands of files

        deploy = self.config.deploy
        self.engine = create_engine(self.config.model, deploy.maximum_streams)
        if deploy.memory_snapshot and not deploy.gpu_snapshot:  # that one holds them on the device
            self.engine.load()

    async def start_engine(self) -> None:
        """The device and a warm-up, on the event loop that will serve. Raises `ModelError` and `ConfigError`."""
        if self.engine.ready:
            return
        await self.engine.start()
        told = self.config.deploy.maximum_streams
        if told is not None and self.engine.capacity < told:
            logger.warning(
                "this container carries %d streams, the platform was told %d: set maximum_streams",
                self.engine.capacity,
                told,
            )

    def app(self) -> FastAPI:
        """What serves it; made after any snapshot."""
        from tympan.server.app import create_app

        return create_app(self.config, self.engine)


class ListeningHost(Host):
    """With a port of its own. Hooks come from the platform's main thread, so the service has a thread of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: Runner | None = None
        self._serving: asyncio.Future[None] | None = None

    def start(self) -> None:
        """The engine alone."""
        asyncio.run_coroutine_threadsafe(self.start_engine(), self._service_loop()).result()

    def listen(self) -> None:
        """Bind the port; returns once clients are let in. Raises `ConfigError` for a port that is taken."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._service_loop()).result()

    def stop(self) -> None:
        """Every open stream gets its last words and 1012; returns when they have left or the grace time is over."""
        assert self._runner is not None
        assert self._serving is not None
        self._runner.should_exit = True
        loop = self._service_loop()
        asyncio.run_coroutine_threadsafe(_wait_for(self._serving), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    def _service_loop(self) -> asyncio.AbstractEventLoop:
        """Made when first asked for: it has sockets."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
            self._thread.start()
        return self._loop

    async def _listen(self) -> None:
        from tympan.server.runner import Runner

        self._runner = Runner(self.app(), self.config)
        self._serving = asyncio.ensure_future(self._runner.run_until_told())
        while not self._runner.started:
            await asyncio.sleep(POLL_SECONDS)
            if self._serving.done():
                await self._serving
                raise EngineError("the service ended before it was up")


async def _wait_for(serving: asyncio.Future[None]) -> None:
    await serving

"""The service for a platform that calls hooks: those come from its main thread, the service has a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from tympan.config import Config
from tympan.errors import EngineError

if TYPE_CHECKING:
    from tympan.server.runner import Runner

POLL_SECONDS: Final = 0.02


class Host:
    """One engine and one listening server. `load` may happen before a snapshot; nothing it makes is unique."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._runner: Runner | None = None
        self._serving: asyncio.Future[None] | None = None

    def load(self) -> None:
        """Imports alone: tens of thousands of files, and the same in every container."""
        from tympan.engine.registry import create_engine
        from tympan.server.app import create_app
        from tympan.server.runner import Runner

        self._engine = create_engine(self._config.model)

        def make_runner() -> Runner:
            return Runner(create_app(self._config, self._engine), self._config)

        self._make = make_runner

    def start_engine(self) -> None:
        """Load the weights and warm up. Raises `ModelError` and `ConfigError`."""
        if not self._thread.is_alive():
            self._thread.start()
        if not self._engine.ready:
            asyncio.run_coroutine_threadsafe(self._engine.start(), self._loop).result()

    def listen(self) -> None:
        """Bind the port; returns once clients are let in. Raises `ConfigError` for a port that is taken."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> None:
        self._runner = self._make()
        self._serving = asyncio.ensure_future(self._runner.run_until_told())
        while not self._runner.started:
            await asyncio.sleep(POLL_SECONDS)
            if self._serving.done():
                await self._serving
                raise EngineError("the service ended before it was up")

    def stop(self) -> None:
        """Every open stream gets its last words and 1012; returns when they have left or the grace time is over."""
        assert self._runner is not None
        assert self._serving is not None
        self._runner.should_exit = True
        asyncio.run_coroutine_threadsafe(_wait_for(self._serving), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _wait_for(serving: asyncio.Future[None]) -> None:
    await serving

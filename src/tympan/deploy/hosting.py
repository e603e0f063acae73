"""The service for a platform that calls hooks and may take a snapshot of the process between two of them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from tympan.config import Config
from tympan.engine.base import Engine
from tympan.errors import EngineError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tympan.server.service import Service
    from tympan.server.uvicorn_server import UvicornServer

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.02
LAST_FRAMES_SECONDS: Final = 0.5  # for the platform to pass on what streams said last


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
        from tympan.server import app, uvicorn_server  # noqa: F401  # tens of thousands of files

        deploy = self.config.deploy
        self.engine = create_engine(self.config.model, deploy.container_max_streams)
        if deploy.memory_snapshot and not deploy.gpu_snapshot:  # that one holds them on the device
            self.engine.load()

    async def start_engine(self) -> None:
        """The device and a warm-up, on the event loop that will serve. Raises `ModelError` and `ConfigError`."""
        if self.engine.ready:
            return
        await self.engine.start()
        told = self.config.deploy.container_max_streams
        if told is not None and self.engine.capacity < told:
            logger.warning(
                "this container carries %d streams, the platform was told %d: set container_max_streams",
                self.engine.capacity,
                told,
            )

    def app(self) -> FastAPI:
        """What serves it; made after any snapshot."""
        from tympan.server.app import create_app

        return create_app(self.config, self.engine)


class GuestHost(Host):
    """Behind the platform's sockets, on its event loop and its main thread."""

    def asgi(self) -> ASGIApp:
        """The app, but an interrupt lets open streams end well first: the platform cancels them, and drops what they
        still say.
        """
        app = self.app()
        interruption = Interruption(app.state.service)

        async def heeding(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                interruption.watch()
            await app(scope, receive, send)

        return heeding


class Interruption:
    """Comes before the platform's own handler, which is set before it lets clients in and knows no delay."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._theirs: Any = None

    def watch(self) -> None:
        """From the first call on."""
        loop = asyncio.get_running_loop()
        if self._theirs is None and signal.SIGINT in _handlers(loop):
            self._theirs = _handlers(loop)[signal.SIGINT]
            loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _interrupted(self) -> None:
        loop = asyncio.get_running_loop()
        _handlers(loop)[signal.SIGINT] = self._theirs
        self._ending = loop.create_task(self._end())

    async def _end(self) -> None:
        await self._service.drain()
        await asyncio.sleep(LAST_FRAMES_SECONDS)
        signal.raise_signal(signal.SIGINT)


def _handlers(loop: asyncio.AbstractEventLoop) -> dict[int, Any]:
    """Asyncio can set a handler, but not say which one there is."""
    handlers: dict[int, Any] = loop._signal_handlers  # type: ignore[attr-defined]
    return handlers


class ListeningHost(Host):
    """With a port of its own. Hooks come from the platform's main thread, so the service has a thread of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: UvicornServer | None = None
        self._serving: asyncio.Future[str] | None = None

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
        from tympan.server.uvicorn_server import UvicornServer

        self._runner = UvicornServer(self.app(), self.config)
        self._serving = asyncio.ensure_future(self._runner.serve_until_stopped())
        while not self._runner.started:
            await asyncio.sleep(POLL_SECONDS)
            if self._serving.done():
                await self._serving
                raise EngineError("the service ended before it was up")
        self._serving.add_done_callback(_end_if_lost)


async def _wait_for(serving: asyncio.Future[str]) -> None:
    await serving


def _end_if_lost(serving: asyncio.Future[str]) -> None:
    """The platform starts another container in place of one whose process has ended."""
    if not serving.cancelled() and serving.exception() is None and serving.result():
        os._exit(1)

"""The service on a platform that calls hooks and may take a snapshot of the process between two hooks."""

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
LAST_FRAMES_SECONDS: Final = 0.5  # in which the platform forwards the last messages of the streams


class Host:
    """The engine of one container, and its app.

    A snapshot is taken after `load` and may be restored in many containers, so `load` uses no device, socket, clock or
    unique id.
    """

    engine: Engine

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self) -> None:
        """Import the service's modules, and load the weights into memory if a snapshot is to contain them there.

        Raises:
            ModelError: The model cannot be found or loaded.
        """
        from tympan.engine.registry import create_engine
        from tympan.server import app, uvicorn_server  # noqa: F401  # tens of thousands of files, for the snapshot

        deploy = self.config.deploy
        self.engine = create_engine(self.config.model, deploy.container_max_streams)
        if deploy.memory_snapshot and not deploy.gpu_snapshot:  # a GPU snapshot has them on the device
            self.engine.load()

    async def start_engine(self) -> None:
        """Start the engine, unless it runs, on the event loop that will serve.

        Raises:
            ModelError: The model cannot be loaded.
            ConfigError: The settings do not fit the machine.
        """
        if self.engine.ready:
            return
        await self.engine.start()
        capacity, maximum = self.engine.capacity, self.config.deploy.container_max_streams
        if maximum is not None and capacity < maximum:
            logger.warning(
                "this container carries %d streams, but the platform sends it %d: set container_max_streams to %d",
                capacity,
                maximum,
                capacity,
            )

    def app(self) -> FastAPI:
        """Return the app of the service; call this after the snapshot."""
        from tympan.server.app import create_app

        return create_app(self.config, self.engine)


class AsgiHost(Host):
    """A host whose connections, event loop and main thread are the platform's."""

    def asgi(self) -> ASGIApp:
        """Return the app, which drains open streams at an interrupt before the platform cancels them."""
        app = self.app()
        handler = DrainingSignalHandler(app.state.service)

        async def draining_app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                handler.install()
            await app(scope, receive, send)

        return draining_app


class DrainingSignalHandler:
    """A handler of SIGINT that drains the service and then runs the platform's own handler, which does not wait."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._platform_handler: Any = None

    def install(self) -> None:
        """Replace the platform's handler, once; the platform sets it before the first client connects."""
        loop = asyncio.get_running_loop()
        if self._platform_handler is None and signal.SIGINT in _handlers(loop):
            self._platform_handler = _handlers(loop)[signal.SIGINT]
            loop.add_signal_handler(signal.SIGINT, self._handle)

    def _handle(self) -> None:
        loop = asyncio.get_running_loop()
        _handlers(loop)[signal.SIGINT] = self._platform_handler
        self._draining = loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._service.drain()
        await asyncio.sleep(LAST_FRAMES_SECONDS)
        signal.raise_signal(signal.SIGINT)


def _handlers(loop: asyncio.AbstractEventLoop) -> dict[int, Any]:
    """Return the loop's signal handlers, for which asyncio has no public function."""
    handlers: dict[int, Any] = loop._signal_handlers  # type: ignore[attr-defined]
    return handlers


class ListeningHost(Host):
    """A host that listens on its own port. The service runs in a thread, as the hooks occupy the main thread."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: UvicornServer | None = None
        self._serving: asyncio.Future[str] | None = None

    def start(self) -> None:
        """Start the engine."""
        asyncio.run_coroutine_threadsafe(self.start_engine(), self._service_loop()).result()

    def listen(self) -> None:
        """Listen on the port; return once the service accepts clients.

        Raises:
            ConfigError: The port is in use.
        """
        asyncio.run_coroutine_threadsafe(self._listen(), self._service_loop()).result()

    def stop(self) -> None:
        """Drain and stop the service: every open stream receives its last words and close code 1012."""
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        loop = self._service_loop()
        asyncio.run_coroutine_threadsafe(_wait_for(self._serving), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    def _service_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop, created at the first call: it has sockets, which a snapshot excludes."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
            self._thread.start()
        return self._loop

    async def _listen(self) -> None:
        from tympan.server.uvicorn_server import UvicornServer

        self._server = UvicornServer(self.app(), self.config)
        self._serving = asyncio.ensure_future(self._server.serve_until_stopped())
        while not self._server.started:
            await asyncio.sleep(POLL_SECONDS)
            if self._serving.done():
                await self._serving
                raise EngineError("the service ended before it accepted clients")
        self._serving.add_done_callback(_end_if_lost)


async def _wait_for(serving: asyncio.Future[str]) -> None:
    await serving


def _end_if_lost(serving: asyncio.Future[str]) -> None:
    """End the process if the service ended with an error; the platform then starts another container."""
    if not serving.cancelled() and serving.exception() is None and serving.result():
        os._exit(1)

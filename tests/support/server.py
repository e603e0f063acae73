"""A server on a real port, in a thread of the test process."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any

import uvicorn
from fastapi import FastAPI

from tympan.config import Config, load_config
from tympan.engine.base import Engine
from tympan.engine.registry import create_engine
from tympan.server.app import create_app
from tympan.server.service import Service
from tympan.server.uvicorn_server import UvicornServer


class LiveServer:
    """Context manager around a server; keyword arguments are settings, or the scripted model's `step_ms`."""

    def __init__(self, engine: Engine | None = None, step_ms: float = 1.0, **settings: Any) -> None:
        self._engine = engine
        overrides = {"model": f"scripted:{step_ms}", "port": 0, "log_level": "warning", **settings}
        self.config: Config = load_config(environment={}, overrides=overrides)
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="live-server")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        engine = self._engine or create_engine(self.config.model)
        await engine.start()
        app = create_app(self.config, engine)
        self.service: Service = app.state.service
        self.runner = self._runner(app)
        self._startup = asyncio.create_task(self._wait_for_startup())
        await self._run_server()
        self.tasks_left = len(asyncio.all_tasks()) - 1

    def _runner(self, app: FastAPI) -> uvicorn.Server:
        return UvicornServer(app, self.config)

    async def _run_server(self) -> None:
        assert isinstance(self.runner, UvicornServer)
        await self.runner.serve_until_stopped()

    async def _wait_for_startup(self) -> None:
        while not self.runner.started:
            await asyncio.sleep(0.01)
        self.port = self.runner.servers[0].sockets[0].getsockname()[1]
        self.loop = asyncio.get_running_loop()
        self._started.set()

    def __enter__(self) -> LiveServer:
        self._thread.start()
        assert self._started.wait(30), "the server did not start"
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server as SIGTERM does, and wait until it has ended."""
        self.terminate()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not stop"
        if self._error is not None:
            raise self._error

    def terminate(self) -> None:
        self.runner.should_exit = True

    def url(self, path: str = "/v1/stream", **query: object) -> str:
        pairs = "&".join(f"{name}={value}" for name, value in query.items())
        return f"ws://127.0.0.1:{self.port}{path}" + (f"?{pairs}" if pairs else "")

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def task_count(self) -> int:
        """Return the number of tasks on the server's event loop."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)


class PlainServer(LiveServer):
    """The application under uvicorn with its own WebSockets, as under any other ASGI server."""

    def _runner(self, app: FastAPI) -> uvicorn.Server:
        return uvicorn.Server(uvicorn.Config(app, port=0, ws="websockets-sansio", log_level="warning"))

    async def _run_server(self) -> None:
        await self.runner.serve()

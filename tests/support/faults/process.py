"""A server process that is not restarted when it ends, and requests to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx
import psutil

from support.faults.server import ENVIRONMENT, WITH_STAND_IN, serving, with_fronts
from support.ports import free_port

SERVE = ("-m", "tympan", "serve")
WAIT_SECONDS = 30.0
POLL_SECONDS = 0.02


class ServerProcess:
    """Context manager around a server; keyword arguments are settings.

    Args:
        log: The file for its standard error.
        command: Arguments of Python that run the server.
        prefix: A command that runs Python, such as `unshare`.
        environment: Changes to the environment; None removes a variable.
        popen: Arguments of `subprocess.Popen`.
        wait_for: The text in the log at which the context is entered; by default that of a server that serves clients.
    """

    wait_seconds = WAIT_SECONDS

    def __init__(
        self,
        log: Path,
        command: Sequence[str] = SERVE,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        popen: Mapping[str, Any] | None = None,
        wait_for: str | None = None,
        **settings: object,
    ) -> None:
        self.port = free_port()
        self._log = log
        options = with_fronts({"host": "127.0.0.1", "port": self.port, **settings})
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._command = [*prefix, sys.executable, *command, *arguments]
        changed = {**(WITH_STAND_IN if "embedded" in settings.values() else ENVIRONMENT), **(environment or {})}
        self._environment = {name: value for name, value in changed.items() if value is not None}
        self._popen = dict(popen or {})
        self._wait_for = serving(options) if wait_for is None else wait_for

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            arguments = {"stdout": log, "stderr": log, "env": self._environment, **self._popen}
            self.process = subprocess.Popen(self._command, **arguments)
        try:
            self.until(lambda: self._wait_for in self.log)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def url(self, path: str = "/v1/stream?events=word") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true, while the process runs."""
        deadline = time.monotonic() + self.wait_seconds
        while not condition():
            assert time.monotonic() < deadline, self.log
            assert self.process.poll() is None, self.log
            time.sleep(POLL_SECONDS)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

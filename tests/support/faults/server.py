"""A server process with a supervisor that restarts it when it ends, as systemd does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

import psutil

import tympan
from support.ports import free_port

FRONTS = int(os.environ.get("FAULT_FRONTS", "1"))
"""Front processes of the servers that do not set them: `make test-faults FRONTS=2`."""

HERE = Path(__file__).parent
TESTS = HERE.parent.parent
SOURCES = Path(tympan.__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, SOURCES)))}
WITH_STAND_IN = {**ENVIRONMENT, "PYTHONPATH": f"{HERE / 'stand_in'}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
NO_WORKERS = {"tympan.audio.containers.worker", "tympan.server.fronts.front", "tympan.server.engine_process"}
READY_SECONDS = 60
RESTART_SECONDS = 0.5
POLL_SECONDS = 0.05


def with_fronts(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings of a server with `FRONTS`, unless they are set."""
    return options if FRONTS == 1 else {"fronts": FRONTS, **options}


def serving(options: Mapping[str, object]) -> str:
    """Return the text in the log of a server with these settings that serves clients with all its processes."""
    return "serves model" if options.get("fronts", 1) == 1 else f"{options['fronts']} front processes serve"


class SupervisedServer:
    """Context manager around the server, which is ready on entry; `exits` has the exit codes of ended processes."""

    def __init__(
        self, command: Sequence[str], log: Path, host: str = "127.0.0.1", prefix: Sequence[str] = (), **settings: object
    ) -> None:
        self.host, self.port = host, free_port()
        options = with_fronts({"host": host, "port": self.port, **settings})
        self._serving = serving(options)
        self._command = [
            *prefix,
            sys.executable,
            *command,
            *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()),
        ]
        self._environment = WITH_STAND_IN if "embedded" in settings.values() else ENVIRONMENT
        self._log = log
        self.exits: list[int] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor")

    def __enter__(self) -> Self:
        self._process = self._start()
        deadline = time.monotonic() + READY_SECONDS
        while self._serving not in self.log:
            assert time.monotonic() < deadline, self.log
            assert self._process.poll() is None, self.log
            time.sleep(POLL_SECONDS)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def children(self) -> list[psutil.Process]:
        """Return the processes that the server has started, and those that they have started."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """Return the recognizer processes."""
        return [child for child in self.children() if not NO_WORKERS & set(child.cmdline())]

    def ready(self) -> tuple[int, str]:
        """Return the status and the body of `/ready`; (0, "") without a response."""
        return self._get("/ready")

    def active(self) -> int:
        """Return the number of slots in use."""
        found = re.search(r'"active":\s*(\d+)', self._get("/health")[1])
        assert found is not None
        return int(found[1])

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://{self.host}:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except OSError as error:
            if hasattr(error, "read"):
                return int(error.code), error.read().decode()  # type: ignore[attr-defined]
            return 0, ""

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment)

    def _supervise(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            code = self._process.poll()
            if code is not None:
                self.exits.append(code)
                time.sleep(RESTART_SECONDS)
                self._process = self._start()


def marks_server(log: Path, fault: str = "none", **settings: object) -> SupervisedServer:
    """Return a server with the model of `support.faults.serve`."""
    return SupervisedServer(["-m", "support.faults.serve", fault], log, **settings)  # type: ignore[arg-type]


def embedded_server(log: Path, **settings: object) -> SupervisedServer:
    """Return a server with the embedded recognizer and a stand-in for faster-whisper."""
    return SupervisedServer(["-m", "tympan", "serve"], log, model="embedded", **settings)  # type: ignore[arg-type]

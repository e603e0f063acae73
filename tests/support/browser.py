"""Speech for the fake microphone, `tympan serve` as a subprocess, and pages that record errors."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page

from support.ports import free_port
from support.proxy import Proxy

START_SECONDS = 30
MICROPHONE_RATE = 48_000


# --- Speech -----------------------------------------------------------------------------------------------------------


def clip(name: str) -> npt.NDArray[np.int16]:
    """Return an English clip of pytest-audioeval as mono 16-bit samples at 48 kHz."""
    path = files("pytest_audioeval") / "samples" / "audio" / "en" / f"{name}.wav"
    resampler = av.AudioResampler(format="s16", layout="mono", rate=MICROPHONE_RATE)
    with av.open(str(path)) as container:
        frames = [*container.decode(audio=0), None]  # None flushes the resampler
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts)


def write_speech(path: Path, names: list[str], pause_seconds: float = 0.9) -> Path:
    """Write the clips to a 48 kHz WAV file, with a pause before, between and after them."""
    pause = np.zeros(int(pause_seconds * MICROPHONE_RATE), np.int16)
    parts = [pause]
    for name in names:
        parts += [clip(name), pause]
    return write_wav(path, np.concatenate(parts), MICROPHONE_RATE)


def write_wav(path: Path, samples: npt.NDArray[np.int16], rate: int) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes(samples.astype("<i2").tobytes())
    return path


# --- Server -----------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """`tympan serve` on a port that it keeps over restarts."""

    log: Path
    options: list[str]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tympan",
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            *self.options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self.process.poll() is None, f"the server has ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{self.log.read_text()}"
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def stop(self) -> None:
        """Stop the server with SIGTERM, which completes open streams."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(START_SECONDS)
            self.process = None


def running(log: Path, *options: str) -> Iterator[Server]:
    server = Server(log, list(options), free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def network(server: Server) -> Iterator[Network]:
    """Yield a network to the server that can be cut."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = Proxy(server.port)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
        yield Network(proxy, loop)
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@dataclass
class Network:
    """A proxy; `cut` closes all its connections, and later ones work."""

    proxy: Proxy
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}/"

    def cut(self) -> None:
        self.loop.call_soon_threadsafe(self.proxy.cut)


# --- Browser ----------------------------------------------------------------------------------------------------------


@dataclass
class Visit:
    """A page, and the errors in its console; `expected` matches those that a test allows."""

    page: Page
    errors: list[str] = field(default_factory=list)
    expected: str = r"(?!)"

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type in {"error", "warning"} else None,
        )

    def check(self) -> None:
        assert [text for text in self.errors if not re.search(self.expected, text)] == []

"""Logging never blocks: stderr may be a pipe that nothing reads."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import httpx2 as httpx
import pytest
from support.ports import free_port
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tympan.server.observability import stderr_writer
from tympan.server.observability.logs import JsonFormatter
from tympan.server.observability.stderr_writer import StderrHandler

PIPE_BYTES = 4096
FULL_LINES = 60  # of about 90 bytes fill the pipe


@contextmanager
def stderr_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make standard error a small pipe, whose reading end is returned."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with os.fdopen(write, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield read
    os.close(read)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("a", logging.INFO, "", 0, text, None, None)


def read_until(pipe: int, end: bytes) -> bytes:
    text = b""
    while end not in text:
        text += os.read(pipe, 100_000)
    return text


def test_lines_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stderr_writer, "MAX_WAITING_BYTES", 10_000)
    with stderr_is_a_pipe(monkeypatch) as pipe:
        handler = StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        for number in range(1000):
            handler.handle(record(f"line {number} {'x' * 80}"))
            if number == FULL_LINES:
                assert not handler.wait(0.2)  # the thread waits for the reader
        lines = read_until(pipe, b"stderr was not read").decode().splitlines()
        written = [int(line.split()[2]) for line in lines if line.startswith("INFO line ")]
        assert written == list(range(len(written)))
        assert lines[-1] == f"WARNING {1000 - len(written)} log lines were dropped, because stderr was not read"
        handler.handle(record("one more"))
        assert handler.wait(10)
        assert read_until(pipe, b"\n").endswith(b"INFO one more\n")


def test_non_blocking_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that shares the pipe may have made it non-blocking."""
    with stderr_is_a_pipe(monkeypatch) as pipe:
        os.set_blocking(sys.stderr.fileno(), False)
        handler = StderrHandler()
        for number in range(200):
            handler.handle(record(f"line {number} {'x' * 80}"))
        lines = read_until(pipe, b"line 199 ").decode().splitlines()
        assert len(lines) == 200


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_stderr(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    closed: TextIO = open(os.devnull, "w")  # noqa: SIM115  # closed next
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)
    handler = StderrHandler()
    handler.handle(record("not seen"))
    assert handler.wait(10)


def test_line_that_cannot_be_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_is_a_pipe(monkeypatch) as pipe:
        handler = StderrHandler()
        handler.setFormatter(JsonFormatter())
        handler.handle(logging.LogRecord("a", logging.INFO, "", 0, "%d words", ("many",), None))
        assert b"cannot be formatted: '%d words'" in read_until(pipe, b"\n")


def test_unread_pipe_does_not_stop_the_server() -> None:
    """A real process writes several times what its pipe holds; it serves, and ends when it is stopped."""
    port = free_port()
    command = [sys.executable, "-m", "tympan", "serve", "--model=scripted", f"--port={port}", "--log-level=debug"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, pipesize=PIPE_BYTES) as process:
        assert process.stderr is not None
        wait_until(lambda: is_ready(port))
        for _ in range(40):
            with connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
                stream.send("EOS")
                list(stream)
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(15) == -signal.SIGTERM
        finally:
            process.kill()
        assert b"serves model" in process.stderr.read()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_refusals_are_counted_by_kind(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(api_keys="a-key", log_level="info") as server:
        for path, attempts in (("/v1/stream", 5), ("/v1/listen", 1)):
            for _ in range(attempts):
                with pytest.raises(InvalidStatus, match="401"):
                    connect(server.url(path=path))
    lines = [line.partition(": ")[2] for line in capfd.readouterr().err.splitlines() if "refused" in line]
    assert len(lines) == 3
    assert lines[0].startswith("refused /v1/stream: ")
    assert lines[1].startswith("refused /v1/listen: ")
    assert lines[2] == "refused 4 more clients of native: unauthorized"

"""A server in its own process, whose memory can be measured, and a bystander that must not be affected."""

from __future__ import annotations

import base64
import json
import multiprocessing
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import connect

from tympan.engine.scripted import DELAY_FRAMES, WORD_FRAMES, scripted_words, word_start_frame

FRAME = bytes(3840)
PACE_SECONDS = 0.04  # twice as fast as speech, for more words
LONGEST_DELAY_SECONDS = 1.5  # of 99 words in 100, on a machine with two cores that also runs the attacker
MIB = 1 << 20


class ServerProcess:
    """A `tympan serve`; `logged_errors` is the log from the first error on.

    Args:
        log: File for its output.
        model: The model that it serves.
        descriptors: Most file descriptors that it may have.
        settings: Further options.
    """

    def __init__(
        self, log: Path, *, model: str = "scripted", descriptors: int | None = None, **settings: object
    ) -> None:
        self._log = log
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "tympan", "serve", f"--model={model}", "--port=0", *options]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$0" "$@"', *command]
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 180
        while (found := re.search(r"on https?://\S+:(\d+)", log.read_text())) is None:
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.port = int(found[1])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def url(self, path: str = "/v1/stream") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    @property
    def memory(self) -> int:
        return int(self.process.memory_info().rss)

    @property
    def workers(self) -> int:
        """Number of processes that decode a stream: the children of the launcher."""
        return sum(len(child.children()) for child in self.process.children())

    @property
    def connections(self) -> int:
        """Number of accepted sockets that are not closed."""
        opened = self.process.net_connections("tcp")
        return sum(each.status in ("ESTABLISHED", "CLOSE_WAIT") for each in opened)

    @property
    def logged_errors(self) -> str:
        text = self._log.read_text(errors="replace")
        first = re.search(r"^.*(ERROR|CRITICAL|Traceback)", text, re.MULTILINE)
        return text[first.start() :] if first else ""

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        peer = socket.socket()
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.settimeout(20)
        peer.connect(("127.0.0.1", self.port))
        return peer

    def upgraded(self, path: str = "/v1/stream", more: str = "", receive_buffer: int | None = None) -> socket.socket:
        peer = self.connect(receive_buffer)
        peer.sendall(opening(path, more))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += peer.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        assert b"xtensions" not in answer, "no extension may be accepted"
        return peer


def opening(path: str = "/v1/stream", more: str = "") -> bytes:
    key = base64.b64encode(bytes(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n{more}\r\n"
    ).encode()


def frame(kind: int, payload: bytes, *, fin: bool = True, flags: int = 0, claimed: int | None = None) -> bytes:
    """Return a masked frame (with a zero mask) whose header declares its length, or the length `claimed`."""
    size = len(payload) if claimed is None else claimed
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + struct.pack(">H", size) if size < 1 << 16 else b"\xff" + struct.pack(">Q", size)
    return bytes([(0x80 if fin else 0) | flags | kind]) + length + bytes(4) + payload


class Bystander:
    """A client in its own process that streams at a steady pace and must receive every word in time."""

    def __init__(self, server: ServerProcess) -> None:
        context = multiprocessing.get_context("spawn")
        self._over, self._started, self._report = context.Event(), context.Event(), context.SimpleQueue()
        arguments = (server.url(), self._started, self._over, self._report)
        self._process = context.Process(target=_stream, args=arguments, daemon=True)
        self._process.start()
        assert self._started.wait(30)

    def finish(self) -> None:
        self._over.set()
        self._process.join(60)
        assert self._process.exitcode == 0
        frames, texts, delays = self._report.get()
        expected = " ".join(word.text for word in scripted_words(frames))
        assert "".join(texts) == expected
        delays.sort()
        p99 = delays[int(len(delays) * 0.99)]
        print(f"bystander: {len(delays)} words, delay p50 {delays[len(delays) // 2]:.3f} s, p99 {p99:.3f} s")
        assert p99 < LONGEST_DELAY_SECONDS


def _stream(url: str, started: Any, over: Any, report: Any) -> None:
    sent_at: list[float] = []
    texts: list[str] = []
    delays: list[float] = []

    def on_message(message: str | bytes) -> None:
        released_by = word_start_frame(len(texts)) + WORD_FRAMES + DELAY_FRAMES - 1
        delays.append(time.monotonic() - sent_at[min(released_by, len(sent_at) - 1)])
        texts.append(json.loads(message)["text"])

    with connect(url, open_timeout=20) as stream:
        started.set()
        while not over.is_set() or len(sent_at) < 80:
            due = time.monotonic() + PACE_SECONDS
            sent_at.append(time.monotonic())
            stream.send(FRAME)
            while (rest := due - time.monotonic()) > 0:
                try:
                    on_message(stream.recv(timeout=rest))
                except TimeoutError:
                    break
        stream.send("EOS")
        texts += [json.loads(message).get("text", "") for message in stream]
    report.put((len(sent_at), texts, delays))


@contextmanager
def others_unaffected(server: ServerProcess, most_memory: int, seconds: float = 20) -> Iterator[None]:
    """Run a bystander; check that the server grows by less than `most_memory` and closes all connections."""
    bystander = Bystander(server)
    before, started_at = server.memory, time.monotonic()
    highest, over = before, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.1):
            highest = max(highest, server.memory)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        bystander.finish()
    print(f"{time.monotonic() - started_at:.1f} s, {(highest - before) / MIB:.0f} MiB more at most")
    assert highest - before < most_memory
    deadline = time.monotonic() + seconds
    while server.connections:
        assert time.monotonic() < deadline, f"{server.connections} connections are still open"
        time.sleep(0.1)
    assert not server.logged_errors, server.logged_errors[:3000]

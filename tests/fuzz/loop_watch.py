"""A second client, in a process of its own, that measures how long the server's event loop does not answer."""

from __future__ import annotations

import multiprocessing
import socket
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fuzz_server import ServerProcess, frame

PING = frame(9, b"")
PONG = 10
AUDIO = frame(2, b"\0\0")  # one sample: without audio, the stream would end
PERIOD_SECONDS = 0.004
MOST_SECONDS = 0.1  # the guarantee is 0.05 on an idle machine
ATTEMPTS = 5


class LoopWatch:
    """`with`: pings the server from another process.

    Attributes:
        longest: Longest time in seconds for which a ping was not answered, after the end.
        p999: The time that all but one in a thousand pings took at most.
    """

    def __init__(self, server: ServerProcess) -> None:
        context = multiprocessing.get_context("spawn")
        self._started, self._over, self._report = context.Event(), context.Event(), context.SimpleQueue()
        arguments = (server.port, self._started, self._over, self._report)
        self._process = context.Process(target=_watch, args=arguments, daemon=True)

    def __enter__(self) -> LoopWatch:
        self._process.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.join(60)
        assert self._process.exitcode == 0, "the client that measures has failed"
        self.longest, self.p999 = self._report.get()


def longest_stall(server: ServerProcess, attack: Callable[[], object]) -> float:
    """Return the longest time in seconds for which a ping was not answered during the attack."""
    with LoopWatch(server) as watch:
        attack()
    return watch.longest


def check_no_stall(server: ServerProcess, attack: Callable[[], object]) -> None:
    """Check that an attack does not stop the event loop.

    A busy machine delays the client as well, now and then; what the attack itself causes is there in every attempt.
    """
    stalls = []
    for _ in range(ATTEMPTS):
        stalls.append(longest_stall(server, attack))
        if stalls[-1] < MOST_SECONDS:
            break
    print(f"longest stall {1000 * min(stalls):.0f} ms")
    assert min(stalls) < MOST_SECONDS, f"the server did not answer for {min(stalls):.2f} s"


def _kind_of_next_frame(peer: socket.socket) -> int:
    """Read a frame of the server: a pong, or a message about the audio."""
    kind, length = _read(peer, 2)
    if length == 126:
        length = int.from_bytes(_read(peer, 2), "big")
    _read(peer, length)
    return kind & 0x0F


def _read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        assert part, "the server has closed the connection"
        data += part
    return data


def _watch(port: int, started: Any, over: Any, report: Any) -> None:
    server = object.__new__(ServerProcess)
    server.port = port
    times: array[float] = array("d", [0.0])
    with server.upgraded() as peer:
        peer.settimeout(60)
        started.set()
        while not over.is_set():
            sent_at = time.monotonic()
            peer.sendall(AUDIO + PING)
            while _kind_of_next_frame(peer) != PONG:
                pass
            times.append(time.monotonic() - sent_at)
            time.sleep(PERIOD_SECONDS)
        with suppress(OSError):
            peer.sendall(frame(8, b"\x03\xe8"))
    ordered = sorted(times)
    report.put((ordered[-1], ordered[int(len(ordered) * 0.999)]))

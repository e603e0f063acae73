"""Records `tests/golden/kyutai/*.jsonl` from the real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
from support.golden import GOLDEN, Recorder
from support.kyutai_wire import audio, decode, message
from support.server import LiveServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tympan.protocols.kyutai import KyutaiProtocol
from tympan.server import app, kyutai


@contextmanager
def recorded(name: str) -> Iterator[tuple[LiveServer, ClientConnection]]:
    make_protocol = partial(Recorder, GOLDEN / "kyutai" / f"{name}.jsonl", KyutaiProtocol)
    with (
        patch.dict(app.PROTOCOLS, {kyutai.PATH: make_protocol}),
        LiveServer() as server,
        connect(server.url(kyutai.PATH), max_queue=None) as socket,
    ):
        yield server, socket


def send_frames(socket: ClientConnection, count: int) -> None:
    for _ in range(count):
        socket.send(audio(np.zeros(1920, np.float32)))


def wait_for(socket: ClientConnection, type: str) -> None:
    while decode(socket.recv(timeout=10))["type"] != type:
        pass


def wait_for_close(socket: ClientConnection) -> None:
    try:
        while True:
            socket.recv(timeout=10)
    except ConnectionClosed:
        pass


def main() -> None:
    with recorded("words_and_a_marker") as (_, socket):
        send_frames(socket, 25)
        socket.send(message(type="Marker", id=1))
        wait_for(socket, "Marker")
    with recorded("equal_markers_and_init") as (_, socket):
        for _ in range(2):
            send_frames(socket, 8)
            socket.send(message(type="Marker", id=-7))
            wait_for(socket, "Marker")
        socket.send(message(type="Init"))
        send_frames(socket, 8)
        socket.send(message(type="Marker", id=300))
        wait_for(socket, "Marker")
    with recorded("a_bad_message") as (_, socket):
        send_frames(socket, 3)
        socket.send(message(type="Audio", pcm="loud"))
        wait_for_close(socket)
    with recorded("a_restart") as (server, socket):
        send_frames(socket, 12)
        wait_for(socket, "Step")
        server.terminate()
        wait_for_close(socket)


if __name__ == "__main__":
    main()

"""The application under uvicorn with its own WebSockets, as Modal and Ray Serve run it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import cast

import pytest
import uvicorn
from starlette.websockets import WebSocket
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tympan.config import load_config
from tympan.engine.registry import create_engine
from tympan.engine.scripted import scripted_words
from tympan.server.app import create_app
from tympan.server.listen.asgi_websocket import AsgiTransport
from tympan.server.listen.base import BURST_MESSAGES, MESSAGES_PER_SECOND
from tympan.server.service import Service
from tympan.server.sessions.connection import Connection


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[str, Service]]:
    """Return the address of a server, and its service."""
    config = load_config(environment={}, overrides={"model": "scripted", "max_streams": 2, "idle_seconds": 2.0})
    app = create_app(config, create_engine(config.model))
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="websockets-sansio", log_level="warning"))
    started = threading.Event()

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        started.set()
        await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(20)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"ws://127.0.0.1:{port}/v1/stream", app.state.service
    server.should_exit = True
    thread.join(20)


def test_stream(plain: tuple[str, Service]) -> None:
    with connect(f"{plain[0]}?events=word") as socket:
        socket.send(bytes(3840 * 30))
        socket.send('{"type": "flush", "id": 3}')
        socket.send(bytes(3840 * 30))
        socket.send("EOS")
        messages = [json.loads(message) for message in socket]
    assert [message["text"] for message in messages if message["type"] == "word"] == [
        word.text for word in scripted_words(60)
    ]
    assert {"type": "flushed", "id": 3} in messages
    assert socket.close_code == 1000


def test_backpressure_loses_nothing(plain: tuple[str, Service]) -> None:
    with connect(f"{plain[0]}?events=word,lag", max_queue=None) as socket:
        for _ in range(30):
            socket.send(bytes(3840 * 100))
        socket.send("EOS")
        messages = [json.loads(message) for message in socket]
    assert len([message for message in messages if message["type"] == "word"]) == len(scripted_words(3000))
    assert max(message["behind"] for message in messages if message["type"] == "lag") <= 4 + 8.1


def test_full_server_and_invalid_frame(plain: tuple[str, Service]) -> None:
    with connect(plain[0]) as first, connect(plain[0]):
        with pytest.raises(InvalidStatus) as refused:
            connect(plain[0])
        assert refused.value.response.status_code == 503
        first.send("hello")
        with pytest.raises(ConnectionClosed):
            while json.loads(first.recv(timeout=10))["code"] == "bad_frame":
                pass
    assert first.close_code == 1003


def test_idle_and_lost_clients(plain: tuple[str, Service]) -> None:
    with connect(plain[0]) as silent:
        assert json.loads(silent.recv(timeout=10))["code"] == "idle"
        with pytest.raises(ConnectionClosed):
            silent.recv(timeout=10)
    assert silent.close_code == 1008
    with connect(plain[0]) as gone:
        gone.send(bytes(3840))
        gone.socket.close()
    wait_until(lambda: plain[1].engine.active == 0)


class Flood:
    """An ASGI WebSocket whose messages have all arrived, so that receiving never yields to other tasks."""

    def __init__(self, count: int) -> None:
        self.left = count

    async def receive(self) -> dict[str, object]:
        self.left -= 1
        if self.left < 0:
            return {"type": "websocket.disconnect", "code": 1000}
        return {"type": "websocket.receive", "text": "{}"}


class CountingConnection:
    """Counts messages."""

    def __init__(self) -> None:
        self.messages = 0

    def start(self) -> None:
        """Do nothing."""

    def on_message(self, message: object) -> None:
        self.messages += 1


async def test_flood_is_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that advances only by sleeping, every burst is followed by a sleep in which other tasks run."""
    flood, connection = Flood(2_000), CountingConnection()
    transport = AsgiTransport(cast(WebSocket, flood))
    transport.connection = cast(Connection, connection)
    sleep, now, sleeps = asyncio.sleep, 0.0, []

    async def recorded_sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        sleeps.append((seconds, connection.messages))
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", recorded_sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    await transport.run()
    assert connection.messages == 2_000
    expected = pytest.approx(BURST_MESSAGES / MESSAGES_PER_SECOND)
    assert [seconds for seconds, _ in sleeps] == [expected] * 8
    assert [messages for _, messages in sleeps] == [BURST_MESSAGES * burst - 1 for burst in range(1, 9)]

"""Clients that lose their connection and resume their stream: no message is lost or repeated."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest
from support.server import LiveServer, PlainServer
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.engine.scripted import scripted_words

FRAME = bytes(3840)
DROPPABLE = {"partial", "vad", "lag"}
EVENTS = "ready,partial,word,segment,turn,vad,lag"
FINISH = '{"type": "finish"}'


@pytest.fixture(scope="module", params=[LiveServer, PlainServer], ids=["picows", "ASGI"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with request.param() as server:
        yield server


class Client:
    """A client that counts messages as docs/protocols/native.md specifies."""

    def __init__(self, server: LiveServer, events: str = EVENTS, **query: object) -> None:
        self.server = server
        self.query = query
        self.messages: list[dict[str, Any]] = []
        self._open = contextlib.ExitStack()
        self.socket = self._connect(events=events, resume="yes", **query)
        self.token = self.read_until("ready")["resume"]

    def _connect(self, **query: object) -> ClientConnection:
        return self._open.enter_context(connect(self.server.url(**query), max_queue=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def received(self) -> int:
        return len(self.messages)

    def read(self, timeout: float = 10) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout))
        if message["type"] not in DROPPABLE:
            self.messages.append(message)
        return message

    def send(self, item: bytes | int) -> None:
        """Send audio, or a flush with this id."""
        self.socket.send(item if isinstance(item, bytes) else json.dumps({"type": "flush", "id": item}))

    def read_available(self, limit: int) -> None:
        with contextlib.suppress(TimeoutError):
            for _ in range(limit):
                self.read(timeout=0.002)

    def read_until(self, kind: str, **fields: object) -> dict[str, Any]:
        while True:
            message = self.read()
            if message["type"] == kind and all(message[name] == value for name, value in fields.items()):
                return message

    def read_all(self) -> int | None:
        """Read to the end, and return the close code."""
        try:
            while True:
                self.read()
        except ConnectionClosed:
            return self.socket.close_code

    def resume(self) -> dict[str, Any]:
        """Resume on a new connection, and return its first message."""
        return self.resume_as(self.token, self.received)

    def resume_as(self, resume: str, received: object, **query: object) -> dict[str, Any]:
        query = {**self.query, **query, "resume": resume, "received": received}
        self.socket = self._connect(**query)
        answer: dict[str, Any] = json.loads(self.socket.recv(timeout=10))
        return answer

    def texts(self) -> list[str]:
        return [message["text"] for message in self.messages if message["type"] == "word"]

    def without_warnings(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] != "warning"]

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]


def cut(client: ClientConnection) -> None:
    """Reset the connection, so that messages in flight are lost."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.shutdown(socket.SHUT_RD)  # wakes the reader thread, which closes the socket
    client.socket.close()


def words(frames: int) -> list[str]:
    return [word.text for word in scripted_words(frames)]


@pytest.mark.parametrize("seed", range(6))
def test_random_cuts_lose_and_repeat_nothing(server: LiveServer, seed: int) -> None:
    dice = random.Random(seed)
    script = random_script(dice)
    with Client(server) as whole:
        for item in script:
            whole.send(item)
        whole.socket.send(FINISH)
        assert whole.read_all() == 1000
    with Client(server) as client:
        cuts = 0
        at = 0
        while at < len(script) or cuts < 5:
            for item in script[at : at + dice.randint(1, 12)]:
                client.send(item)
                at += 1
            client.read_available(dice.randint(0, 10))
            if dice.random() < 0.4 or at == len(script):
                cut(client.socket)
                cuts += 1
                at = position_in(script, client.resume())
        client.socket.send(FINISH)
        assert client.read_all() == 1000
    assert len(client.texts()) > 10
    assert client.types().count("warning") == 1, "about silence; its place depends on timing"
    assert client.without_warnings()[1:] == whole.without_warnings()[1:]


def random_script(dice: random.Random) -> list[bytes | int]:
    """Return audio in chunks of random size, and the ids of flushes between them."""
    script: list[bytes | int] = []
    for marker in range(1, 6):
        audio = FRAME * 24
        while audio:
            size = dice.randint(1, 9000)
            script.append(audio[:size])
            audio = audio[size:]
        script.append(marker)
    return script


def position_in(script: list[bytes | int], resumed: dict[str, Any]) -> int:
    """Return the index of the first item that the server lacks."""
    audio, flushes = resumed["audio_bytes"], resumed["flushes"]
    assert resumed["type"] == "resumed"
    for at, item in enumerate(script):
        if audio == 0 and (flushes == 0 or isinstance(item, bytes)):
            assert flushes == 0
            return at
        if isinstance(item, bytes):
            audio -= len(item)
        else:
            flushes -= 1
    assert (audio, flushes) == (0, 0)
    return len(script)


@pytest.mark.parametrize("events", ["ready,word", "ready,word,partial,lag", "ready,word,vad", EVENTS])
def test_droppable_messages_are_not_counted(server: LiveServer, events: str) -> None:
    """After a flush everything has been received, so nothing may be sent again, whichever messages are selected."""
    with Client(server, events) as client:
        for flush in (1, 2):
            client.send(FRAME * 50)
            client.send(flush)
            client.read_until("flushed", id=flush)
            cut(client.socket)
            assert client.resume() == {"type": "resumed", "audio_bytes": flush * 50 * 3840, "flushes": flush}
        client.socket.send(FINISH)
        assert client.read_all() == 1000
    assert client.texts() == words(100)
    types = [kind for kind in client.types() if kind in ("ready", "flushed", "complete")]
    assert types == ["ready", "flushed", "flushed", "complete"]


@pytest.mark.parametrize("kind", [LiveServer, PlainServer])
def test_resume_after_finish(kind: type[LiveServer]) -> None:
    with kind(step_ms=10) as server, Client(server) as client:
        client.socket.send(FRAME * 50)
        client.socket.send(FINISH)
        client.read_until("word")
        cut(client.socket)
        wait_until(lambda: server.service.engine.active == 0)
        assert client.resume() == {"type": "resumed", "audio_bytes": 50 * 3840, "flushes": 0}
        assert client.read_all() == 1000
        assert client.texts() == words(50)
        assert client.types()[-1] == "complete"


def test_resume_of_half_open_connection(server: LiveServer) -> None:
    """The client has noticed that the connection is lost; the server has not."""
    with Client(server) as client:
        old = client.socket
        client.socket.send(FRAME * 50)
        wait_until(lambda: server.service.engine.active == 1)
        time.sleep(0.2)
        assert client.resume()["audio_bytes"] == 50 * 3840
        client.socket.send(FRAME * 10)
        client.socket.send(FINISH)
        assert client.read_all() == 1000
        assert client.texts() == words(60)
        with pytest.raises(ConnectionClosed):
            while True:
                old.recv(timeout=10)
        assert old.close_code == 1006, "the old connection is cut"


def test_resume_request_right_after_audio() -> None:
    """The server reads audio from the old connection in the same iteration of its loop as the request to resume."""
    with LiveServer() as server, Client(server) as client:
        raw = socket.create_connection(("127.0.0.1", server.port))
        wait_until(lambda: len(server.runner.server_state.connections) == 2)
        blocked, release = threading.Event(), threading.Event()
        server.loop.call_soon_threadsafe(lambda: (blocked.set(), release.wait(10)))
        blocked.wait(10)
        client.send(FRAME)
        threading.Timer(0.3, release.set).start()
        with connect(server.url(resume=client.token, received=client.received), sock=raw) as client.socket:
            resumed = json.loads(client.socket.recv(timeout=10))
            client.socket.send(bytes(20 * 3840 - resumed["audio_bytes"]))
            client.socket.send(FINISH)
            assert client.read_all() == 1000
        assert client.messages[-1]["audio_seconds"] == pytest.approx(20 * 0.08), "each sample is processed once"


def test_late_resume_request(server: LiveServer) -> None:
    with Client(server) as client:
        client.socket.send(FRAME * 24)
        client.socket.send('{"type": "flush", "id": 1}')
        received = client.received
        cut(client.socket)
        client.resume()
        client.read_until("flushed", id=1)
        with connect(server.url(resume=client.token, received=received)) as late:
            assert json.loads(late.recv(timeout=10))["type"] == "resumed"
            client.resume()
            client.socket.send(FRAME * 24 + b"")
            client.socket.send(FINISH)
            assert client.read_all() == 1000
        assert client.texts() == words(48)
        answer = client.resume()
        assert answer["code"] == "cannot_resume", "the stream has been closed"


def test_slot_kept_for_resume_seconds() -> None:
    with LiveServer(max_streams=1, resume_seconds=1.5) as server, Client(server) as client:
        client.socket.send(FRAME * 5)
        cut(client.socket)
        time.sleep(0.3)
        assert server.service.engine.active == 1
        with pytest.raises(InvalidStatus):
            connect(server.url())
        wait_until(lambda: server.service.engine.active == 0)
        answer = client.resume()
        assert (answer["type"], answer["code"]) == ("error", "cannot_resume")
        assert client.read_all() == 1008
        assert not server.service.connections.resumable
        assert 'tympan_sessions_total{code="1006",protocol="native"} 1.0' in server.service.metrics.render().decode()


@pytest.mark.parametrize("kind", [LiveServer, PlainServer])
def test_close_frees_slot_at_once(kind: type[LiveServer]) -> None:
    with kind(resume_seconds=60) as server, Client(server) as client:
        client.socket.close(1001)
        wait_until(lambda: server.service.engine.active == 0)
        assert client.resume()["code"] == "cannot_resume"


def test_invalid_token_key_or_count() -> None:
    with LiveServer(api_keys=["one", "two"], host="127.0.0.1") as server, Client(server, token="one") as client:
        cut(client.socket)
        assert client.resume_as("A" * 43, 1)["code"] == "cannot_resume"
        assert client.resume_as(client.token, 1, token="two")["code"] == "cannot_resume"
        assert client.resume_as(client.token, 2)["code"] == "cannot_resume"
        assert client.resume_as(client.token, "x")["code"] == "bad_parameter"
        assert client.resume_as(client.token, "")["code"] == "bad_parameter"
        with pytest.raises(InvalidStatus, match="401"):
            client.resume_as(client.token, 1, token="three")
        assert client.resume()["type"] == "resumed"


def test_too_many_missed_messages() -> None:
    with LiveServer(outbox_messages=40, step_ms=1, resume_seconds=60) as server, Client(server) as client:
        client.socket.send(FRAME * 500)
        client.read_until("word")
        cut(client.socket)
        wait_until(lambda: server.service.engine.active == 0)
        assert client.resume()["type"] == "resumed"
        assert client.read_all() == 1013
    assert client.messages[-1]["code"] == "slow_reader"
    assert client.texts() == words(500)[: len(client.texts())]


def test_drain_ignores_lost_clients() -> None:
    with LiveServer(resume_seconds=60, grace_seconds=3600) as server, Client(server) as client:
        client.socket.send(FRAME * 20)
        cut(client.socket)
        wait_until(lambda: _lost(server))
        server.stop()  # fails if it waits for the grace time
        text = server.service.metrics.render().decode()
        assert 'tympan_sessions_total{code="1012",protocol="native"} 1.0' in text


def _lost(server: LiveServer) -> bool:
    return any(connection._transport is None for connection in server.service.connections.resumable.values())


def test_lost_client_is_not_idle() -> None:
    with LiveServer(resume_seconds=60, idle_seconds=0.5) as server, Client(server) as client:
        cut(client.socket)
        wait_until(lambda: _lost(server))
        time.sleep(2.2)
        assert client.resume()["type"] == "resumed"
        client.socket.send(FINISH)
        assert client.read_all() == 1000


def test_resume_disabled() -> None:
    with LiveServer(resume_seconds=0) as server, connect(server.url(events="ready", resume="yes")) as client:
        assert "resume" not in json.loads(client.recv(timeout=10))


def test_resume_requires_ready_event(server: LiveServer) -> None:
    for query in ({"events": "word"}, {}):
        with connect(server.url(resume="yes", **query)) as client:
            assert json.loads(client.recv(timeout=10))["code"] == "bad_parameter"
    with connect(server.url(events="ready")) as client:
        assert "resume" not in json.loads(client.recv(timeout=10)), "without the parameter `resume`"


def test_resume_while_reading_is_paused() -> None:
    """The connection is lost while the server does not read, because its engine is slower than the client."""
    with LiveServer(step_ms=2, backlog_seconds=0.5) as server, Client(server) as client:
        sender = threading.Thread(target=_push, args=(client.socket, 40))
        sender.start()
        time.sleep(0.1)
        answer = client.resume()
        sender.join(20)
        sent = answer["audio_bytes"] // len(FRAME)
        client.socket.send(FRAME * (400 - sent))
        client.socket.send(FINISH)
        assert client.read_all() == 1000
        assert client.texts() == words(400)


def _push(client: ClientConnection, count: int) -> None:
    try:
        for _ in range(count):
            client.send(FRAME * 10)
    except (ConnectionClosed, OSError):
        pass

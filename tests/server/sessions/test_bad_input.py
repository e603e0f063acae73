"""Invalid input: the error, the close code, and the streams of other clients."""

from __future__ import annotations

import json
import socket as tcp
import struct
import time
from collections.abc import Iterator

import psutil
import pytest
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.engine.scripted import scripted_words


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture(autouse=True)
def others_are_served(server: LiveServer) -> Iterator[None]:
    """Keep another stream open during each test, and check that it works to its end."""
    with connect(server.url()) as bystander:
        bystander.send(bytes(3840 * 20))
        yield
        bystander.send("EOS")
        messages = [json.loads(message) for message in bystander]
    assert "".join(message.get("text", "") for message in messages) == "word0 word1 word2 word3"
    assert bystander.close_code == 1000
    wait_until(lambda: server.service.engine.active == 0)


def reset_instead_of_close(socket: ClientConnection) -> None:
    """Reset the TCP connection, as when a machine loses power."""
    socket.socket.setsockopt(tcp.SOL_SOCKET, tcp.SO_LINGER, struct.pack("ii", 1, 0))
    socket.socket.shutdown(tcp.SHUT_RD)
    socket.close_socket()


def ending(socket: ClientConnection) -> tuple[dict[str, str], int | None]:
    """Return the last message and the close code."""
    messages, code = unread(socket)
    return (messages or [{}])[-1], code


def unread(socket: ClientConnection) -> tuple[list[dict[str, str]], int | None]:
    """Return all unread messages and the close code."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(timeout=10)))
    except ConnectionClosed:
        return messages, socket.close_code


def outcome(url: str, *messages: str | bytes) -> tuple[dict[str, str], int | None]:
    with connect(url) as socket:
        try:
            for message in messages:
                socket.send(message)
        except ConnectionClosed:
            pass
        return ending(socket)


def test_odd_byte_counts(server: LiveServer) -> None:
    with connect(server.url()) as socket:
        for _ in range(40):
            socket.send(bytes(1921))
        socket.send(bytes(1))  # half a sample at the end
        socket.send("EOS")
        messages = [json.loads(message) for message in socket]
    words = [word.text for word in scripted_words(21)]  # the 21st frame is padded
    assert "".join(message.get("text", "") for message in messages) == " ".join(words)
    assert socket.close_code == 1000


def test_empty_stream(server: LiveServer) -> None:
    with connect(server.url()) as socket:
        socket.send(b"")
        socket.send("EOS")
        assert [json.loads(message) for message in socket] == [{"text": "", "final": True}, {"status": "complete"}]
    assert socket.close_code == 1000


def test_message_too_big(server: LiveServer) -> None:
    error, code = outcome(server.url(), bytes(3 * 1024 * 1024))
    assert (error["code"], code) == ("too_big", 1009)
    assert "3145728 bytes" in error["message"]
    assert "2097152" in error["message"]


def test_huge_message_is_not_read(server: LiveServer) -> None:
    _, code = outcome(server.url(), bytes(64 * 1024 * 1024))
    assert code in (1009, 1006)  # the server closes the connection meanwhile, so its close frame may be lost


def test_unexpected_text(server: LiveServer) -> None:
    error, code = outcome(server.url(), "hello")
    assert (error["code"], code) == ("bad_frame", 1003)
    assert "binary frames" in error["message"]


@pytest.mark.parametrize(
    ("query", "name", "right"),
    [
        ({"encoding": "pcm_u8"}, "pcm_u8", "s16le"),
        ({"sample_rate": "1000"}, "1000", "8000"),
        ({"events": "wrods"}, "wrods", "partial, word"),
        ({"channels": "7"}, "7", "1 or 2"),
    ],
)
def test_invalid_parameter(server: LiveServer, query: dict[str, str], name: str, right: str) -> None:
    error, code = outcome(server.url(**query))
    assert (error["code"], code) == ("bad_parameter", 1008)
    assert name in error["message"]
    assert right in error["message"]


def test_invalid_opus(server: LiveServer) -> None:
    noise = bytes((index * 7919 + 13) % 251 for index in range(100_000))
    error, code = outcome(server.url(encoding="opus"), noise, "EOS")
    assert (error["code"], code) == ("bad_audio", 1007)


def test_client_that_never_reads() -> None:
    """With small socket buffers, the outbox fills up with droppable messages, and then with words."""
    with LiveServer(outbox_messages=50, step_ms=0) as server:
        server.runner.servers[0].sockets[0].setsockopt(tcp.SOL_SOCKET, tcp.SO_SNDBUF, 4096)  # sockets inherit it
        raw = tcp.socket()
        raw.setsockopt(tcp.SOL_SOCKET, tcp.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        with connect(server.url(events="all"), sock=raw, max_queue=1) as socket:
            for _ in range(40):
                socket.send(bytes(3840 * 100))
            wait_until(lambda: server.service.engine.active == 0)
            messages, code = unread(socket)
        assert (messages[-1]["code"], code) == ("slow_reader", 1013)
        words = [message["text"] for message in messages if message["type"] == "word"]
        assert words == [word.text for word in scripted_words(4000)][: len(words)], "none is missing between"
        assert len(words) > 20
        wait_until(lambda: 'code="1013"' in server.service.metrics.render().decode())
        assert "tympan_dropped_messages_total 0.0" not in server.service.metrics.render().decode()
        with connect(server.url()) as other:
            other.send("EOS")
            assert json.loads(other.recv(timeout=10)) == {"text": "", "final": True}


def test_lost_client_frees_slot(server: LiveServer) -> None:
    with connect(server.url()) as socket:
        socket.send(bytes(3840 * 500))
        wait_until(lambda: server.service.engine.active == 2)
        reset_instead_of_close(socket)
        wait_until(lambda: server.service.engine.active == 1)


def test_thousand_connections_leak_nothing(server: LiveServer) -> None:
    def visit(count: int) -> None:
        for number in range(count):
            with connect(server.url(encoding="opus" if number % 10 == 0 else "s16le")) as socket:
                if number % 2:
                    socket.send(bytes(3840))
                if number % 3 == 0:
                    reset_instead_of_close(socket)

    visit(200)
    wait_until(lambda: server.service.engine.active == 1)
    tasks, memory = server.task_count(), psutil.Process().memory_info().rss
    visit(800)
    wait_until(lambda: server.service.engine.active == 1)
    wait_until(lambda: server.task_count() <= tasks)
    assert psutil.Process().memory_info().rss - memory < 16 * 1024 * 1024


def test_full_server_sets_retry_after() -> None:
    with LiveServer(max_streams=1) as server, connect(server.url()):
        with pytest.raises(InvalidStatus) as refused:
            connect(server.url())
        response = refused.value.response
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert json.loads(response.body or b"")["error"]["code"] == "full"


def test_two_channels_need_two_slots() -> None:
    """Neither is reserved if only one is free."""
    with LiveServer(max_streams=2) as server, connect(server.url()):
        for path in ("/v1/stream?channels=2", "/v1/listen?channels=2&multichannel=true"):
            with pytest.raises(InvalidStatus) as refused:
                connect(server.url(path))
            assert refused.value.response.status_code in (429, 503)
            assert server.service.engine.active == 1
        with connect(server.url()) as socket:
            socket.send("EOS")
            assert json.loads(socket.recv(timeout=10)) == {"text": "", "final": True}


def test_idle_and_long_sessions_end() -> None:
    with LiveServer(idle_seconds=0.2) as server, connect(server.url()) as socket:
        error, code = ending(socket)
        assert (error["code"], code) == ("idle", 1008)
    with LiveServer(session_seconds=0.2) as server, connect(server.url()) as socket:
        error, code = ending(socket)
        assert (error["code"], code) == ("session_too_long", 1008)


def test_keepalive() -> None:
    with LiveServer(idle_seconds=1.5) as server, connect(server.url()) as socket:
        for _ in range(8):
            time.sleep(0.4)
            socket.send('{"type": "keepalive"}')
        socket.send("EOS")
        assert json.loads(socket.recv(timeout=10)) == {"text": "", "final": True}

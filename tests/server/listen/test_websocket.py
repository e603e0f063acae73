"""WebSocket frames (RFC 6455): fragments, pings, close frames and protocol violations."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from support.server import LiveServer
from websockets.sync.client import connect

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FRAME = bytes(3840)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


class RawClient:
    """A client that sends arbitrary frames."""

    def __init__(self, server: LiveServer, sockets: list[socket.socket], **headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=15)
        sockets.append(self.socket)
        lines = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **headers,
        }
        request = "GET /v1/stream HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(request.encode() + b"\r\n")
        self._reader = self.socket.makefile("rb")
        sockets.append(self._reader)  # type: ignore[arg-type]
        self.status = int(self._reader.readline().split()[1])
        while self._reader.readline() not in (b"\r\n", b""):
            pass

    def send(self, kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> None:
        size = len(payload)
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
        first = bytes([(0x80 if fin else 0) | rsv | kind, length[0] | (0x80 if masked else 0)])
        self.socket.sendall(first + length[1:] + (bytes(4) if masked else b"") + payload)

    def receive(self) -> tuple[int, bytes]:
        first, second = self._reader.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._reader.read(2))
        return first & 0x0F, self._reader.read(size)

    def close_code(self) -> int:
        while (message := self.receive())[0] != CLOSE:
            pass
        (code,) = struct.unpack(">H", message[1][:2])
        return int(code)


def test_fragmented_messages_with_ping_between(server: LiveServer, sockets: list[socket.socket]) -> None:
    client = RawClient(server, sockets)
    client.send(BINARY, FRAME * 4, fin=False)
    client.send(PING, b"here?")
    client.send(CONTINUATION, FRAME * 4, fin=False)
    client.send(CONTINUATION, b"")
    client.send(TEXT, b"E", fin=False)
    client.send(CONTINUATION, b"OS")
    assert client.receive() == (PONG, b"here?")
    kind, payload = client.receive()
    assert (kind, json.loads(payload)) == (TEXT, {"text": "word0 word1", "final": True})
    assert client.close_code() == 1000


def test_close_code_is_echoed(server: LiveServer, sockets: list[socket.socket]) -> None:
    client = RawClient(server, sockets)
    client.send(CLOSE, struct.pack(">H", 1001))
    assert client.close_code() == 1001
    assert client.socket.recv(1) == b""


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([(CONTINUATION, b"x", {})], 1002, id="stray continuation"),
        pytest.param([(BINARY, b"x", {"fin": False}), (BINARY, b"x", {})], 1002, id="message within a message"),
        pytest.param([(BINARY, b"x", {"masked": False})], 1002, id="not masked"),
        pytest.param([(BINARY, b"x", {"rsv": 0x40})], 1002, id="compression not negotiated"),
        pytest.param([(TEXT, b"x", {"rsv": 0x20})], 1002, id="reserved bit"),
        pytest.param([(5, b"x", {})], 1002, id="unknown opcode"),
        pytest.param([(PING, b"x", {"fin": False})], 1002, id="fragmented ping"),
        pytest.param([(PING, bytes(126), {})], 1002, id="long ping"),
        pytest.param([(TEXT, b"\xff\xfe", {})], 1007, id="text that is not UTF-8"),
        pytest.param([(BINARY, bytes(60_000), {"fin": False}), *[(CONTINUATION, bytes(60_000), {"fin": False})] * 200],
                     1009, id="message too big"),
    ],
)  # fmt: skip
def test_protocol_violation_closes_with_code(
    server: LiveServer,
    sockets: list[socket.socket],
    frames: list[tuple[int, bytes, dict[str, bool | int]]],
    code: int,
) -> None:
    client = RawClient(server, sockets)
    try:
        for kind, payload, options in frames:
            client.send(kind, payload, **options)  # type: ignore[arg-type]
    except OSError:
        assert code == 1009  # the server has already closed the connection
    assert client.close_code() == code
    with connect(server.url()) as other:
        other.send("EOS")
        assert json.loads(other.recv(timeout=10)) == {"text": "", "final": True}


@pytest.mark.parametrize(
    "headers",
    [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Key": "not 16 bytes"}],
    ids=["old version", "invalid key"],
)
def test_invalid_handshake_takes_no_slot(
    server: LiveServer, sockets: list[socket.socket], headers: dict[str, str]
) -> None:
    before = server.service.engine.active
    client = RawClient(server, sockets, **headers)
    assert client.status in (400, 426)
    assert client.socket.recv(1 << 16) is not None
    assert server.service.engine.active == before


def test_unknown_path(server: LiveServer, sockets: list[socket.socket]) -> None:
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    sockets.append(raw)
    key = base64.b64encode(bytes(16)).decode()
    raw.sendall(
        f"GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert raw.recv(64).startswith(b"HTTP/1.1 404")

"""Time limits for slow clients, and limits on what the server stores for them."""

from __future__ import annotations

import base64
import socket
import struct
import time
from collections.abc import Iterator

import psutil
import pytest
from support.server import LiveServer
from support.waiting import wait_until

from tympan.server.listen import http_protocol, websocket

KEY = "secret"
UPGRADE = (
    "GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    f"Authorization: Bearer {KEY}\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_protocol, "HEAD_TIMEOUT_SECONDS", 0.6)
        patch.setattr(http_protocol, "WRITE_TIMEOUT_SECONDS", 0.6)
        patch.setattr(websocket, "CLOSE_TIMEOUT_SECONDS", 0.6)
        with LiveServer(api_keys=(KEY,), host="127.0.0.1", idle_seconds=0.6) as server:
            yield server


class Peer:
    """A TCP connection to the server; reads time out after 15 s."""

    def __init__(self, server: LiveServer, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", server.port))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def read(self) -> bytes:
        """Return everything that the server sends until it closes the connection."""
        received = b""
        try:
            while data := self.socket.recv(1 << 16):
                received += data
        except ConnectionError:
            pass
        return received

    def drip(self, text: str, every: float = 0.1) -> bytes:
        """Send one byte at a time until the server closes the connection; fail if it does not."""
        self.socket.settimeout(every)
        for byte in text:
            try:
                self.send(byte)
                if not self.socket.recv(1 << 16):
                    return b""
            except TimeoutError:
                continue
            except ConnectionError:
                return b""
        raise AssertionError("the server did not close the connection")


def test_silent_connection_is_closed(server: LiveServer) -> None:
    with Peer(server) as peer:
        assert peer.read() == b""


@pytest.mark.parametrize(
    "head", ["GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + "a" * 100, UPGRADE, "\r\n" * 100]
)
def test_slow_request_is_closed(server: LiveServer, head: str) -> None:
    with Peer(server) as peer:
        assert peer.drip(head) == b""
    assert server.service.engine.active == 0


def test_slow_second_request_is_closed(server: LiveServer) -> None:
    for method in ("GET", "DELETE"):
        with Peer(server) as peer:
            peer.send(
                f"{method} /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Content-Length: {0 if method == 'GET' else 999}\r\n\r\n"
            )
            assert peer.socket.recv(1 << 16).startswith(b"HTTP/1.1 ")
            peer.drip("\r\n" * 100 if method == "GET" else "x" * 100)


def test_keepalive(server: LiveServer) -> None:
    with Peer(server) as peer:
        for _ in range(4):
            peer.send("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = peer.socket.recv(1 << 16)
            while not answer.endswith(b"}"):
                answer += peer.socket.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.3)


def test_endless_headers(server: LiveServer) -> None:
    before = psutil.Process().memory_info().rss
    for line in ("a" * 100, "x: " + "a" * 100 + "\r\n"):
        with Peer(server) as peer:
            peer.send("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + "y: ")
            sent = 0
            try:
                while sent < 64 << 20:
                    peer.send(line * 100)
                    sent += len(line) * 100
            except ConnectionError:
                pass
            assert sent < 64 << 20
    assert psutil.Process().memory_info().rss - before < 32 << 20


@pytest.mark.parametrize("head", ["GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", UPGRADE])
def test_long_headers_in_one_packet(server: LiveServer, head: str) -> None:
    with Peer(server) as peer:
        peer.send(head + "x: " + "a" * 20_000 + "\r\n\r\n")
        assert peer.read().startswith(b"HTTP/1.1 400")
    with Peer(server) as peer:
        peer.send(head + "x: " + "a" * 12_000 + "\r\n\r\n")
        assert peer.socket.recv(1 << 16).split()[1] in (b"200", b"101")


@pytest.mark.parametrize("path", ["/v1/listen", "/api/asr-streaming", "/v1/audio/transcriptions"])
def test_stalled_body_takes_no_slot(server: LiveServer, path: str) -> None:
    form = path.startswith("/v1/audio")
    kind, body = ("multipart/form-data; boundary=x", "--x\r") if form else ("audio/wav", "RIFF")
    with Peer(server) as peer:
        peer.send(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nkyutai-api-key: {KEY}\r\n"
            f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{body}\r\n"
        )
        answer = peer.read()
        assert answer.startswith(b"HTTP/1.1 408"), answer
        assert b"in time" in answer
    assert server.service.engine.active == 0


def test_unread_response_is_dropped(server: LiveServer) -> None:
    with Peer(server, receive_buffer=4096) as peer:
        request = "GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        peer.send(request * 2000)
        wait_until(lambda: not is_connected(server))


def is_connected(server: LiveServer) -> bool:
    connections = psutil.Process().net_connections("tcp")
    return any(each.status == "ESTABLISHED" and each.laddr[1] == server.port for each in connections)


def test_non_ascii_keys(server: LiveServer) -> None:
    for header in (b"Authorization: Bearer \xff\xfe", b"Sec-WebSocket-Protocol: token, \xe9"):
        with Peer(server) as peer:
            other = UPGRADE.replace(f"Authorization: Bearer {KEY}\r\n", "").encode()
            peer.send(other + header + b"\r\n\r\n")
            assert peer.read().startswith(b"HTTP/1.1 401")


def test_invalid_host_header(server: LiveServer) -> None:
    with Peer(server) as peer:
        peer.send(f"GET /v1/models HTTP/1.1\r\nHost: [::1\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n")
        assert peer.read().startswith(b"HTTP/1.1 200")


def opened(server: LiveServer, **options: int) -> Peer:
    peer = Peer(server, **options)
    peer.send(UPGRADE + "\r\n")
    assert peer.socket.recv(1 << 16).startswith(b"HTTP/1.1 101")
    return peer


def masked(kind: int, payload: bytes, fin: bool = True) -> bytes:
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([(0x80 if fin else 0) | kind]) + length + bytes(4) + payload


def test_no_pongs_for_client_that_does_not_read(server: LiveServer) -> None:
    """Otherwise the pongs would fill the server's memory: here, more than 60 MB."""
    before = psutil.Process().memory_info().rss
    with opened(server, receive_buffer=4096) as peer:
        pings = masked(9, b"p" * 125) * 500
        try:
            for _ in range(1000):
                peer.send(pings)
        except ConnectionError:
            pass  # closed as idle
        assert psutil.Process().memory_info().rss - before < 24 << 20


def test_message_of_many_fragments(server: LiveServer) -> None:
    with opened(server) as peer:
        peer.send(masked(2, b"", fin=False) + masked(0, b"x", fin=False) * 2000 + masked(9, b"still here?"))
        assert peer.socket.recv(1 << 16)[2:] == b"still here?"


def test_close_without_answer(server: LiveServer) -> None:
    with opened(server) as peer:
        peer.send(masked(1, b"EOS"))
        assert b"\x88\x02\x03\xe8" in peer.read()


@pytest.mark.parametrize("frame", [masked(8, b"\x03\xe8"), masked(0, b"stray fragment")], ids=["close", "violation"])
@pytest.mark.usefixtures("server")  # for its short time limits
def test_close_frees_slot_with_unread_messages(frame: bytes) -> None:
    options = {"api_keys": (KEY,), "host": "127.0.0.1"}
    with LiveServer(**options) as server, opened(server, receive_buffer=4096) as peer:
        peer.send(masked(9, b"p" * 125) * 4000)
        peer.send(frame)
        wait_until(lambda: not server.service.engine.active)
        wait_until(lambda: not is_connected(server))

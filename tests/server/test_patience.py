"""Clients that take their time, on purpose or not: how long the server waits, and for how much."""

from __future__ import annotations

import base64
import socket
import struct
import time
from collections.abc import Iterator

import psutil
import pytest
from support.server import LiveServer

from tympan.server.listen import http_protocol, websocket

KEY = "secret"
UPGRADE = (
    "GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Authorization: Bearer {KEY}\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_protocol, "HEAD_SECONDS", 0.6)
        patch.setattr(http_protocol, "STUCK_SECONDS", 0.6)
        patch.setattr(websocket, "CLOSE_SECONDS", 0.6)
        with LiveServer(api_keys=(KEY,), host="127.0.0.1", idle_seconds=0.6) as server:
            yield server


class Peer:
    """A TCP connection that counts how long it lasts."""

    def __init__(self, server: LiveServer, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", server.port))
        self.opened_at = time.monotonic()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def read(self) -> bytes:
        """Everything until the server hangs up."""
        received = b""
        try:
            while data := self.socket.recv(1 << 16):
                received += data
        except ConnectionError:
            pass
        return received

    def drip(self, text: str, every: float = 0.1) -> bytes:
        """Sends a byte at a time until the server hangs up."""
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
        raise AssertionError("the server would wait for ever")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.opened_at


def test_who_says_nothing_is_not_waited_for(server: LiveServer) -> None:
    with Peer(server) as peer:
        assert peer.read() == b""
        assert 0.3 < peer.seconds < 5


@pytest.mark.parametrize("head", ["GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: " + "a" * 100, UPGRADE, "\r\n" * 100])
def test_a_request_that_drips_in_is_not_waited_for(server: LiveServer, head: str) -> None:
    with Peer(server) as peer:
        assert peer.drip(head) == b""
        assert peer.seconds < 5
    assert server.service.engine.active == 0


def test_nor_is_a_second_one_on_the_same_connection_or_a_body_that_nobody_wants(server: LiveServer) -> None:
    for method in ("GET", "DELETE"):
        with Peer(server) as peer:
            peer.send(
                f"{method} /health HTTP/1.1\r\nHost: x\r\nContent-Length: {0 if method == 'GET' else 999}\r\n\r\n"
            )
            assert peer.socket.recv(1 << 16).startswith(b"HTTP/1.1 ")
            peer.drip("\r\n" * 100 if method == "GET" else "x" * 100)
            assert peer.seconds < 5


def test_a_connection_may_be_used_again(server: LiveServer) -> None:
    with Peer(server) as peer:
        for _ in range(4):
            peer.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = peer.socket.recv(1 << 16)
            while not answer.endswith(b"}"):
                answer += peer.socket.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.3)


def test_endless_headers_are_refused(server: LiveServer) -> None:
    before = psutil.Process().memory_info().rss
    for line in ("a" * 100, "x: " + "a" * 100 + "\r\n"):
        with Peer(server) as peer:
            peer.send("GET /health HTTP/1.1\r\nHost: x\r\n" + "y: ")
            sent = 0
            try:
                while sent < 64 << 20:
                    peer.send(line * 100)
                    sent += len(line) * 100
            except ConnectionError:
                pass
            assert sent < 64 << 20
    assert psutil.Process().memory_info().rss - before < 32 << 20


@pytest.mark.parametrize("head", ["GET /health HTTP/1.1\r\nHost: x\r\n", UPGRADE])
def test_long_headers_are_refused_also_all_at_once(server: LiveServer, head: str) -> None:
    with Peer(server) as peer:
        peer.send(head + "x: " + "a" * 20_000 + "\r\n\r\n")
        assert peer.read().startswith(b"HTTP/1.1 400")
    with Peer(server) as peer:
        peer.send(head + "x: " + "a" * 12_000 + "\r\n\r\n")
        assert peer.socket.recv(1 << 16).split()[1] in (b"200", b"101")


@pytest.mark.parametrize("path", ["/v1/listen", "/api/asr-streaming", "/v1/audio/transcriptions"])
def test_a_body_that_stands_still_costs_no_slot(server: LiveServer, path: str) -> None:
    form = path.startswith("/v1/audio")
    kind, body = ("multipart/form-data; boundary=x", "--x\r") if form else ("audio/wav", "RIFF")
    with Peer(server) as peer:
        peer.send(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nkyutai-api-key: {KEY}\r\n"
            f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{body}\r\n"
        )
        answer = peer.read()
        assert answer.startswith(b"HTTP/1.1 408"), answer
        assert b"in time" in answer
    assert server.service.engine.active == 0


def test_an_answer_that_nobody_reads_is_not_kept(server: LiveServer) -> None:
    with Peer(server, receive_buffer=4096) as peer:
        request = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        peer.send(request * 2000)
        while any(each.status == "ESTABLISHED" and each.laddr[1] == server.port for each in connections()):
            assert peer.seconds < 10
            time.sleep(0.1)


def connections() -> list[psutil._common.pconn]:
    return psutil.Process().net_connections("tcp")


def test_keys_that_are_no_ascii_are_unknown_ones(server: LiveServer) -> None:
    for header in (b"Authorization: Bearer \xff\xfe", b"Sec-WebSocket-Protocol: token, \xe9"):
        with Peer(server) as peer:
            other = UPGRADE.replace(f"Authorization: Bearer {KEY}\r\n", "").encode()
            peer.send(other + header + b"\r\n\r\n")
            assert peer.read().startswith(b"HTTP/1.1 401")


def test_a_host_that_is_none_is_no_matter(server: LiveServer) -> None:
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


def test_pings_of_who_reads_no_pongs_are_not_answered(server: LiveServer) -> None:
    """Its answers would be kept until it reads them."""
    before = psutil.Process().memory_info().rss
    with opened(server, receive_buffer=4096) as peer:
        pings = masked(9, b"p" * 125) * 500
        try:
            while peer.seconds < 3:
                peer.send(pings)
        except ConnectionError:
            pass  # it was idle for too long
        assert psutil.Process().memory_info().rss - before < 24 << 20


def test_a_message_of_very_many_parts(server: LiveServer) -> None:
    with opened(server) as peer:
        peer.send(masked(2, b"", fin=False) + masked(0, b"x", fin=False) * 2000 + masked(9, b"still here?"))
        assert peer.socket.recv(1 << 16)[2:] == b"still here?"
        assert peer.seconds < 5


def test_a_goodbye_that_the_client_does_not_answer(server: LiveServer) -> None:
    with opened(server) as peer:
        peer.send(masked(1, b"EOS"))
        received = peer.read()
        assert b"\x88\x02\x03\xe8" in received
        assert 0.3 < peer.seconds < 5


@pytest.mark.parametrize("goodbye", [masked(8, b"\x03\xe8"), masked(0, b"a part of nothing")], ids=["said", "implied"])
def test_who_leaves_gives_the_slot_back_though_it_has_not_read_all(server: LiveServer, goodbye: bytes) -> None:
    with opened(server, receive_buffer=4096) as peer:
        peer.send(masked(9, b"p" * 125) * 4000)
        peer.send(goodbye)
        while server.service.engine.active:
            assert peer.seconds < 0.55, "before anything ends it for being idle"
            time.sleep(0.01)
        while any(each.status == "ESTABLISHED" and each.laddr[1] == server.port for each in connections()):
            assert peer.seconds < 5
            time.sleep(0.05)

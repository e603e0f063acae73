"""Close frames of every endpoint, byte by byte (RFC 6455 §5.5.1 and §7.4), also under another ASGI server."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from support.raw_websocket import BINARY, CLOSE, PING, PONG, RawClient
from support.server import LiveServer, PlainServer
from support.waiting import wait_until

from tympan.server.app import PROTOCOLS

PATHS = {
    path: path + ("?encoding=linear16&sample_rate=16000" if path.startswith(("/v1/listen", "/v2/listen")) else "")
    for path in PROTOCOLS
}
PROTOCOL_ERROR, INVALID_TEXT = struct.pack(">H", 1002), struct.pack(">H", 1007)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture(scope="module")
def asgi_server() -> Iterator[LiveServer]:
    with PlainServer() as server:
        yield server


def opened(server: LiveServer, path: str) -> RawClient:
    client = RawClient(server.port, PATHS[path])
    assert client.status == 101
    return client


@pytest.mark.parametrize("path", PATHS)
def test_close_without_code(server: LiveServer, path: str) -> None:
    """`ws.close()` in browsers and Node: the answer has no code either; code 0 must not be sent."""
    with opened(server, path) as client:
        client.send(PING, b"here?")
        while client.receive() != (PONG, b"here?"):
            pass
        client.send(CLOSE)
        assert client.close_frame() == b""
        assert client.is_closed()
    wait_until(lambda: server.service.engine.active == 0)


@pytest.mark.parametrize("path", PATHS)
def test_close_without_code_under_another_server(asgi_server: LiveServer, path: str) -> None:
    with opened(asgi_server, path) as client:
        client.send(CLOSE)
        assert client.close_frame() in (b"", struct.pack(">H", 1000))
    wait_until(lambda: asgi_server.service.engine.active == 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_close_with_code_and_reason(server: LiveServer, path: str, code: int) -> None:
    with opened(server, path) as client:
        client.send(CLOSE, struct.pack(">H", code) + "done ✓".encode())
        assert client.close_frame()[:2] == struct.pack(">H", code)
        assert client.is_closed()
    wait_until(lambda: server.service.engine.active == 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("payload", "answer"),
    [(b"\x03", PROTOCOL_ERROR)]
    + [(struct.pack(">H", code), PROTOCOL_ERROR) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)]
    + [(struct.pack(">H", 1000) + b"\xff\xfe", INVALID_TEXT)],
    ids=lambda value: value.hex() if isinstance(value, bytes) else None,
)
def test_invalid_close_frame(server: LiveServer, path: str, payload: bytes, answer: bytes) -> None:
    with opened(server, path) as client:
        client.send(CLOSE, payload)
        assert client.close_frame()[:2] == answer
    wait_until(lambda: server.service.engine.active == 0)


@pytest.mark.parametrize("path", PATHS)
def test_close_after_audio_without_code(server: LiveServer, path: str) -> None:
    with opened(server, path) as client:
        client.send(BINARY, bytes(3840))
        client.send(CLOSE)
        frame = client.close_frame()
        # A binary frame of zeros is an error for protocols that send JSON or MessagePack; they close first.
        assert frame == b"" or struct.unpack(">H", frame[:2])[0] in (1000, 1003, 1008)
    wait_until(lambda: server.service.engine.active == 0)

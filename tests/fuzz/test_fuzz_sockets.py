"""Invalid bytes on real sockets: random bytes and frames, cut anywhere, before and after the upgrade."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import fuzz_frames as frames
import pytest
from fuzz_conversation import PATHS
from fuzz_server import MIB, ServerProcess, frame, others_unaffected

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(180)]

CONNECTIONS = 1500
HEADS = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Protocol: realtime, token\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    b"Expect: 100-continue\r\n",
    b"Authorization: Bearer \xff\r\n",
    b"Host: [::1\r\n",
    b"POST /v1/listen?encoding=%ff&sample_rate=%00 HTTP/1.1\r\n",
    b"GET /static/%00..%2f..%2fapp.py HTTP/1.1\r\n\r\n",
    b"\r\n",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("sockets") / "server.log", idle_seconds=5)
    yield server
    server.stop()


def send_in_pieces(peer: socket.socket, data: bytes, random: Random) -> None:
    """Send the data in pieces and shut the socket down for writing; the server may close it before."""
    peer.settimeout(5)
    with suppress(OSError):
        while data:
            size = random.choice((1, 2, 7, 100, 5000))
            peer.sendall(data[:size])
            data = data[size:]
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 16):
            pass


def wild_frame(name: str, random: Random) -> bytes:
    """Return a frame that is valid most of the time; otherwise its opcode, length or flags are wrong."""
    message = frames.frame(name, random, 0.2)
    data = message.encode() if isinstance(message, str) else message[:60_000]
    chance = random.random()
    if chance < 0.8:
        return frame(1 if isinstance(message, str) else 2, data)
    if chance < 0.85:
        return random.randbytes(random.randrange(40))
    claimed = random.choice((None, None, 0, 5, 127, 1 << 16, 1 << 40, (1 << 63) + 5))
    kind, flags = random.randrange(16), random.choice((0, 0, 0, 0x10, 0x40))
    return frame(kind, data[:125], fin=random.random() < 0.8, flags=flags, claimed=claimed)


def test_random_requests(server: ServerProcess) -> None:
    random = Random(1)
    with others_unaffected(server, 32 * MIB):
        for _ in range(CONNECTIONS):
            data = b"".join(random.choices(HEADS, k=random.randrange(6))) + b"\r\n"
            if random.random() < 0.3:
                data = bytes(byte if random.random() < 0.97 else random.randrange(256) for byte in data)
            with server.connect() as peer:
                send_in_pieces(peer, data, random)


def test_random_frames(server: ServerProcess) -> None:
    random = Random(2)
    count = 0
    with others_unaffected(server, 64 * MIB):
        for _ in range(CONNECTIONS):
            name = random.choice(list(frames.VALID))
            path = PATHS[name] + ("?encoding=linear16&sample_rate=16000" if name in ("deepgram", "flux") else "")
            many = [wild_frame(name, random) for _ in range(random.randrange(40))]
            count += len(many)
            with server.upgraded(path) as peer:
                send_in_pieces(peer, b"".join(many), random)
    print(f"{count} frames on {CONNECTIONS} connections")

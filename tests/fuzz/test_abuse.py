"""Malicious clients: their cost in memory and time is bounded, and another stream is not affected."""

from __future__ import annotations

import gzip
import io
import resource
import selectors
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

import av
import httpx2 as httpx
import numpy as np
import pytest
from fuzz_server import MIB, ServerProcess, frame, opening, others_unaffected

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(180)]

HALF_OPEN = 10_000
UPLOADS = ("/v1/listen", "/api/asr-streaming", "/v1/audio/transcriptions")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("abuse") / "server.log", idle_seconds=5)
    yield server
    server.stop()


def wait_for_closes(peers: list[socket.socket], seconds: float) -> None:
    """Wait until the server has closed all connections."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            peer.setblocking(False)
            selector.register(peer, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() < deadline, f"{len(selector.get_map())} connections are still open"
            for key, _ in selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                with suppress(ConnectionError):
                    if key.fileobj.recv(1 << 16):
                        continue
                selector.unregister(key.fileobj)
                key.fileobj.close()


def test_slow_loris(server: ServerProcess) -> None:
    """One byte of the headers per second, of HTTP requests and of WebSocket upgrades."""
    with others_unaffected(server, 64 * MIB):
        peers = [server.connect() for _ in range(500)]
        heads = (
            opening(),
            b"POST /v1/listen HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nX: ",
            opening("/?a="),
        )
        for place in range(12):
            for number, peer in enumerate(peers):
                with suppress(OSError):
                    peer.sendall(heads[number % 3][place : place + 1])
            time.sleep(1)
        wait_for_closes(peers, 5)


def test_half_open_connections(server: ServerProcess) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wave = min(HALF_OPEN, hard - 500)
    opened = 0
    with others_unaffected(server, 400 * MIB):
        while opened < HALF_OPEN:
            peers = [server.connect() for _ in range(wave)]
            opened += wave
            for peer in peers[::2]:
                peer.sendall(opening()[:60])
            answered_at = time.monotonic()
            assert httpx.get(server.http("/health"), timeout=10).status_code == 200
            assert time.monotonic() - answered_at < 5
            wait_for_closes(peers, 30)
    print(f"{opened} half-open connections, {wave} at a time")


def test_oversized_messages(server: ServerProcess) -> None:
    with others_unaffected(server, 150 * MIB):
        for claimed in (8 * MIB + 1, 1 << 40, (1 << 63) - 1):
            with server.upgraded() as peer:
                peer.sendall(frame(2, b"", claimed=claimed))
                assert b"\x03\xf1" in peer.recv(200), "1009"
        peers = [server.upgraded() for _ in range(20)]
        for peer in peers:  # most of a message, and nothing after it
            peer.sendall(frame(2, bytes(7 * MIB), claimed=8 * MIB))
        wait_for_closes(peers, 20)


def test_compression_is_not_negotiated(server: ServerProcess) -> None:
    extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    with others_unaffected(server, 32 * MIB), server.upgraded(more=extensions) as peer:
        peer.sendall(frame(2, b"\x00" * 100, flags=0x40))
        assert b"\x03\xea" in peer.recv(200), "1002"


@pytest.mark.parametrize("part", [b"", b"x", b"x" * 100], ids=["empty", "one", "hundred"])
def test_endless_message(server: ServerProcess, part: bytes) -> None:
    """Fragments without a final one, until the server reaches its size limit or its timeout."""
    with others_unaffected(server, 64 * MIB), server.upgraded() as peer:
        parts = frame(0, part, fin=False) * 2000
        started_at = time.monotonic()
        with suppress(OSError):
            peer.sendall(frame(2, b"", fin=False))
            while time.monotonic() - started_at < 30:
                peer.sendall(parts)
        assert time.monotonic() - started_at < 30


def test_clients_that_never_read(server: ServerProcess) -> None:
    """Pings, settings and flushes, whose answers are never read, must not accumulate."""
    settings = '{"type": "session.update", "session": {"include": ["' + "x" * 1_900_000 + '"]}}'
    floods = {
        "/v1/stream": frame(9, b"p" * 125) * 1000,
        "/v1/realtime": frame(1, settings.encode()),
        "/v1/listen?encoding=linear16&sample_rate=16000": frame(1, b'{"type": "Finalize"}') * 1000,
        "/api/speech/asr": frame(1, b'{"type": "setup"}') + frame(1, b'{"type": "flush", "flush_id": 1}') * 1000,
    }
    with others_unaffected(server, 100 * MIB):

        def flood(path: str, data: bytes) -> None:
            with server.upgraded(path, receive_buffer=4096) as peer, suppress(OSError):
                peer.settimeout(8)
                started_at = time.monotonic()
                while time.monotonic() - started_at < 8:
                    peer.sendall(data)

        threads = [threading.Thread(target=flood, args=each) for each in floods.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@cache
def long_silence(container: str, codec: str, hours: float) -> bytes:
    """Return hours of silence in a few bytes."""
    file, rate = io.BytesIO(), 48_000 if codec == "libopus" else 8_000
    options = {"frame_duration": "60", "vbr": "on"} if codec == "libopus" else {}
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options)
        stream.layout = "mono"
        for _ in range(int(hours * 60)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 60 * rate), np.int16), format="s16", layout="mono")
            silence.sample_rate = rate
            output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    return file.getvalue()


def post(server: ServerProcess, path: str, data: bytes, seconds: float, **headers: str) -> int | None:
    """Return the status, or `None` if the client has timed out and disconnected."""
    try:
        if path.startswith("/v1/audio"):
            files = {"file": ("a", data)}
            return httpx.post(server.http(path), files=files, headers=headers, timeout=seconds).status_code
        return httpx.post(server.http(path), content=data, headers=headers, timeout=seconds).status_code
    except httpx.TimeoutException:
        return None


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("impatient") / "server.log", session_seconds=15)
    yield server
    server.stop()


@pytest.mark.parametrize("path", UPLOADS)
def test_hours_of_audio_in_small_file(impatient: ServerProcess, path: str) -> None:
    """A disconnected client is detected when its audio is processed; the maximum duration of a session applies, too."""
    bombs = [
        long_silence("flac", "flac", 20.0),
        long_silence("ogg", "libopus", 1.0),
        long_silence("webm", "libopus", 1.0),
    ]
    print([f"{len(bomb) >> 10} KiB" for bomb in bombs])
    with others_unaffected(impatient, 64 * MIB, seconds=30):
        threads = [threading.Thread(target=post, args=(impatient, path, bomb, 5)) for bomb in bombs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as inside:
        inside.writestr("a.wav", bytes(200 * MIB))
    return file.getvalue()


@pytest.mark.parametrize("path", UPLOADS)
def test_compressed_uploads_are_rejected(server: ServerProcess, path: str) -> None:
    packed = gzip.compress(bytes(200 * MIB), 6)
    with others_unaffected(server, 64 * MIB):
        assert post(server, path, packed, 10, **{"content-encoding": "gzip"}) == 400
        assert post(server, path, archive(), 10) == 400


@pytest.mark.parametrize(
    ("what", "status"),
    [("fields", 400), ("files", 400), ("header", 400), ("headers", 400), ("name", 400), ("boundary", 400)],
)
def test_oversized_forms(server: ServerProcess, what: str, status: int) -> None:
    field = b'--x\r\nContent-Disposition: form-data; name="a"'
    body = {
        "fields": (field + b"\r\n\r\n1\r\n") * 20_000,
        "files": (field + b'; filename="a"\r\n\r\n1\r\n') * 20_000,
        "header": field + b"\r\nX: " + b"a" * (20 * MIB),
        "headers": field + b"\r\nX: a" * 500_000,
        "name": b'--x\r\nContent-Disposition: form-data; name="' + b"a" * (20 * MIB) + b'"\r\n\r\n1\r\n--x--\r\n',
        "boundary": field + b"\r\n\r\n" + b"\r\n--" * 2_000_000,
    }[what]
    with others_unaffected(server, 100 * MIB):
        headers = {"content-type": "multipart/form-data; boundary=x"}
        url = server.http("/v1/audio/transcriptions")
        started_at = time.monotonic()
        assert httpx.post(url, content=body, headers=headers, timeout=30).status_code == status
        print(f"{len(body) >> 10} KiB: {time.monotonic() - started_at:.1f} s")


@pytest.mark.parametrize("path", UPLOADS)
def test_endless_upload(server: ServerProcess, path: str) -> None:
    wav = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0\x80\xbb\0\0\0\xee\x02\0\x04\0\x10\0data\xff\xff\xff\xff"
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'

    def endless() -> Iterator[bytes]:
        yield form + wav if path.startswith("/v1/audio") else wav
        while True:
            yield bytes(1 << 16)

    headers = {"content-type": "multipart/form-data; boundary=x"} if path.startswith("/v1/audio") else {}
    with others_unaffected(server, 100 * MIB):
        answer = httpx.post(server.http(path), content=endless(), headers=headers, timeout=60)
        assert answer.status_code == 413

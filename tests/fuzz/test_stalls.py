"""Messages and files that are costly to decode do not stop the event loop, and what they leave behind is bounded."""

from __future__ import annotations

import select
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2 as httpx
import msgspec
import pytest
from fuzz_server import MIB, ServerProcess, frame
from loop_watch import check_no_stall
from support.hostile_containers import flac_with_tags, mp3_with_tags, mp4_with_table, opus_with_tags

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(180)]

CLOSE = b"\x88"  # begins a close frame
MOST_GROWTH = 1.2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("stalls") / "server.log", idle_seconds=5)
    yield server
    server.stop()


def send(server: ServerProcess, path: str, *frames: bytes, seconds: float = 3.0) -> None:
    """Send frames to a new WebSocket, and read its answers until it is closed or there has been none for some time."""
    with server.upgraded(path) as peer, suppress(OSError):
        for each in frames:
            peer.sendall(each)
        peer.settimeout(seconds)
        while (answer := peer.recv(1 << 16)) and CLOSE not in answer:
            pass


COSTLY_FILES: dict[str, Callable[[], bytes]] = {
    "FLAC tags": lambda: flac_with_tags(40_000),
    "ID3 frames": lambda: mp3_with_tags(100_000),
    "Opus tags": lambda: opus_with_tags(40_000),
    "MP4 table": lambda: mp4_with_table(60_000_000),
}


@pytest.mark.parametrize("make_file", COSTLY_FILES.values(), ids=COSTLY_FILES)
def test_costly_files(server: ServerProcess, make_file: Callable[[], bytes]) -> None:
    data = make_file()
    before = server.memory

    def attack() -> None:
        for path in ("/v1/listen", "/api/asr-streaming"):
            assert httpx.post(server.http(path), content=data, timeout=30).status_code == 400
        for path in ("/v1/stream?encoding=auto", "/v1/stream?encoding=opus"):
            send(server, path, frame(2, data), frame(1, b"EOS"))

    check_no_stall(server, attack)
    assert server.memory < MOST_GROWTH * before


def nested(text: bytes, size: int = 2 * MIB - 100) -> bytes:
    return b"[" + text * (size // len(text)) + b"0]"


def small_integers(count: int = 2 * MIB - 100) -> bytes:
    """A MessagePack `Audio` whose samples alternate between one byte and three, up to the size of a message."""
    samples = b"\x01\xd1\x7f\xff" * (count // 4)
    head = msgspec.msgpack.encode({"type": "Audio"})
    return b"\x82" + head[1:] + b"\xa3pcm\xdd" + struct.pack(">I", count // 2) + samples


COSTLY_MESSAGES = {
    "deepgram": (
        "/v1/listen?encoding=linear16&sample_rate=16000",
        1,
        b'{"type": "KeepAlive", "x": ' + nested(b"[],") + b"}",
    ),
    "flux": (
        "/v2/listen?encoding=linear16&sample_rate=16000",
        1,
        b'{"type": "KeepAlive", "x": ' + nested(b"{},") + b"}",
    ),
    "native": ("/v1/stream", 1, b'{"type": "keepalive", "x": ' + nested(b"{},") + b"}"),
    "openai": ("/v1/realtime", 1, b'{"type": "session.update", "session": {"include": ' + nested(b"[],") + b"}}"),
    "openai append": ("/v1/realtime", 1, b'{"type": "input_audio_buffer.append", "x": ' + nested(b"[],") + b"}"),
    "gradium": ("/api/speech/asr", 1, b'{"type": "flush", "flush_id": ' + nested(b"[],") + b"}"),
    "kyutai": ("/api/asr-streaming", 2, small_integers()),
}


@pytest.mark.parametrize(("path", "kind", "message"), COSTLY_MESSAGES.values(), ids=COSTLY_MESSAGES)
def test_costly_messages(server: ServerProcess, path: str, kind: int, message: bytes) -> None:
    setup = (frame(1, b'{"type": "setup"}'),) if "speech" in path else ()
    before = server.memory

    def attack() -> None:
        for _ in range(5):
            send(server, path, *setup, frame(kind, message))

    check_no_stall(server, attack)
    assert server.memory < MOST_GROWTH * before + 8 * MIB, "up to 8 MiB of one message"


def test_flushes_are_limited(server: ServerProcess) -> None:
    """A client that requests flushes without end waits for the answers, as one that sends audio without end does."""
    flood = (frame(2, b"\0\0") + frame(1, b'{"type":"flush"}')) * 500
    before = server.memory

    def attack() -> None:
        with server.upgraded() as peer, suppress(OSError):
            peer.settimeout(2)
            for _ in range(400):  # 9 MiB
                peer.sendall(flood)

    check_no_stall(server, attack)
    assert server.memory < MOST_GROWTH * before


@pytest.mark.parametrize(
    "head", [b"\0\0\0\1free" + (1 << 40).to_bytes(8, "big"), b"\0\0\0\0mdat"], ids=["free", "mdat"]
)
def test_bytes_without_audio_are_limited(server: ServerProcess, head: bytes) -> None:
    before = server.memory

    def attack() -> None:
        with server.upgraded("/v1/stream?encoding=auto") as peer:
            peer.sendall(frame(2, head))
            for _ in range(100):
                peer.sendall(frame(2, bytes(MIB)))
                if select.select([peer], [], [], 0)[0]:
                    break
            assert b"no audio was found in the first 64 MiB" in peer.recv(1000)

    check_no_stall(server, attack)
    assert server.memory < MOST_GROWTH * before + 16 * MIB


def half_a_form(part: bytes) -> bytes:
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26000000\r\n"
    return head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + part


def test_half_sent_forms(server: ServerProcess) -> None:
    """What incomplete forms occupy is limited for all of them together, and those that do not continue are cut."""
    field = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n' + b"v" * (MIB - 100) + b"\r\n"
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(24 * MIB)
    before = server.memory

    def hold(body: bytes) -> None:
        with server.connect() as peer:
            peer.settimeout(40)
            with suppress(OSError):
                peer.sendall(half_a_form(body))
            with suppress(OSError):
                peer.recv(4096)

    bodies = [b"".join(field % number for number in range(24))] * 12 + [file] * 14
    threads = [threading.Thread(target=hold, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    highest = 0.0
    while any(thread.is_alive() for thread in threads):
        text = httpx.get(server.http("/metrics"), timeout=10).text
        waiting = next(line for line in text.splitlines() if line.startswith('tympan_waiting_bytes{kind="buffered"}'))
        highest = max(highest, float(waiting.split()[1]))
        time.sleep(0.2)
    assert 8 * MIB < highest <= 256 * MIB
    assert 'tympan_waiting_bytes{kind="buffered"} 0.0' in httpx.get(server.http("/metrics")).text
    refused = [line for line in text.splitlines() if line.startswith('tympan_refused_total{reason="full"}')]
    assert refused, "those that exceeded the budget"
    assert server.memory < MOST_GROWTH * before + 32 * MIB


def test_streamed_answer_that_nobody_reads(server: ServerProcess) -> None:
    """A client that is gone before the first server-sent event leaves no slot in use."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    )
    for _ in range(100):
        with server.connect() as peer:
            head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
            peer.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body)
    deadline = time.monotonic() + 10
    while (active := httpx.get(server.http("/health")).json()["active"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert active == 0

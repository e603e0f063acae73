"""Slots are not held by clients that are gone or send no audio, and the log has the client's own close code."""

from __future__ import annotations

import json
import time
from socket import SHUT_RDWR

import httpx2 as httpx
import msgspec
import pytest
from support.server import LiveServer
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.server import connections


def lose_stream(server: LiveServer) -> str:
    """Open a resumable stream, cut its connection, and return its token."""
    with connect(server.url(resume="yes", events="ready")) as socket:
        token = json.loads(socket.recv())["resume"]
        socket.socket.shutdown(SHUT_RDWR)
    return str(token)


def metric(server: LiveServer, name: str) -> float:
    lines = httpx.get(server.http("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def wait_for(server: LiveServer, name: str, value: float) -> None:
    deadline = time.monotonic() + 10
    while metric(server, name) != value:
        assert time.monotonic() < deadline, f"{name} is {metric(server, name)}"
        time.sleep(0.05)


def test_lost_streams_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that may still be resumed do not keep out a client that is here; the one lost first is released."""
    monkeypatch.setattr(connections, "EVICT_AFTER_SECONDS", 0.0)
    with LiveServer(max_streams=3, resume_seconds=60) as server:
        tokens = []
        for number in range(3):
            tokens.append(lose_stream(server))
            wait_for(server, "tympan_lost_streams", number + 1)
        with connect(server.url()) as socket:
            socket.send(bytes(3840 * 40))
            socket.send("EOS")
            assert any("word0 word1" in message for message in map(str, socket))
        assert metric(server, "tympan_evicted_total") == 1
        with connect(server.url(resume=tokens[0], received=0)) as first, pytest.raises(ConnectionClosed):
            assert json.loads(first.recv())["code"] == "cannot_resume"
            first.recv()
        with connect(server.url(resume=tokens[1], received=0)) as second:
            assert json.loads(second.recv())["type"] == "resumed"


def test_streams_just_lost_are_kept() -> None:
    """A client that returns at once finds its stream, although another one has asked for a slot."""
    with LiveServer(max_streams=1) as server:
        token = lose_stream(server)
        wait_for(server, "tympan_lost_streams", 1)
        with pytest.raises(InvalidStatus, match="503"), connect(server.url()):
            pass
        with connect(server.url(resume=token, received=0)) as socket:
            assert json.loads(socket.recv())["type"] == "resumed"


def test_stream_without_audio_ends() -> None:
    """Messages without audio keep a connection alive, but not for ever."""
    with LiveServer(silent_seconds=1) as server, connect(server.url(events="all")) as socket:
        ended = time.monotonic() + 20
        with pytest.raises(ConnectionClosed):
            while time.monotonic() < ended:
                socket.send('{"type": "keepalive"}')
                time.sleep(0.1)
        last = [json.loads(message) for message in remaining(socket)][-1]
        assert (last["code"], last["message"]) == ("idle", "no audio was received for 1 s")


def remaining(socket: ClientConnection) -> list[str | bytes]:
    messages = []
    try:
        while True:
            messages.append(socket.recv(timeout=5))
    except ConnectionClosed:
        return messages


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/api/asr-streaming", "kyutai"),
        ("/v1/realtime", "openai"),
        ("/v1/stream", "native"),
        ("/v1/listen?encoding=linear16&sample_rate=16000", "deepgram"),
    ],
)
@pytest.mark.parametrize("code", [1000, 1001, 4000])
def test_close_code_of_the_client(path: str, protocol: str, code: int) -> None:
    """A stream that its client closes is counted with the client's code, not as a lost connection."""
    with LiveServer() as server:
        with connect(f"ws://127.0.0.1:{server.port}{path}") as socket:
            if protocol == "kyutai":
                socket.send(msgspec.msgpack.encode({"type": "Audio", "pcm": [0.0] * 1920}))
            socket.close(code)
        wait_for(server, f'tympan_sessions_total{{code="{code}",protocol="{protocol}"}}', 1)
        assert metric(server, 'tympan_sessions_total{code="1006"') == 0

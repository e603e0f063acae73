"""Wyoming clients: the package's own client, raw bytes on the socket, limits, the end of the server."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from support.ports import free_port
from support.server import LiveServer
from support.waiting import until, wait_until
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from tympan.engine.scripted import scripted_words
from tympan.errors import ConfigError, MissingPackageError

SECONDS = 12.0
TEXT = " ".join(word.text for word in scripted_words(round(SECONDS / 0.08)))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(wyoming_port=0, max_streams=1) as server:
        yield server


@asynccontextmanager
async def connect(server: LiveServer) -> AsyncIterator[AsyncTcpClient]:
    async with AsyncTcpClient("127.0.0.1", port_of(server)) as client:
        yield client


def port_of(server: LiveServer) -> int:
    port: int = server.runner.wyoming.port  # type: ignore[attr-defined]
    return port


def utterance(seconds: float = SECONDS, rate: int = 16_000, width: int = 2, channels: int = 1) -> Iterator[Eventable]:
    """Yield the events of an utterance as Home Assistant sends them."""
    yield Transcribe(language="en")
    yield AudioStart(rate, width, channels)
    audio = bytes(round(seconds * rate) * width * channels)
    size = 2048 * width * channels
    for start in range(0, len(audio), size):
        yield AudioChunk(rate, width, channels, audio[start : start + size])
    yield AudioStop()


async def send(client: AsyncTcpClient, *events: Eventable) -> None:
    for event in events:
        await client.write_event(event.event())


async def read(client: AsyncTcpClient, last: str = "transcript-stop") -> list[Event]:
    """Return the events up to one of type `last`, or up to the end of the connection."""
    events: list[Event] = []
    async with asyncio.timeout(20):
        while (event := await client.read_event()) is not None:
            events.append(event)
            if event.type == last:
                break
    return events


def check_transcript(events: Sequence[Event], text: str) -> None:
    """Check the events of one utterance: the start, chunks that add up to the text, the whole text, the stop."""
    start, *chunks, whole, stop = events
    assert TranscriptStart.is_type(start.type)
    assert all(TranscriptChunk.is_type(chunk.type) for chunk in chunks)
    assert "".join(TranscriptChunk.from_event(chunk).text for chunk in chunks) == text
    assert Transcript.from_event(whole).text == text
    assert TranscriptStop.is_type(stop.type)


async def test_info_names_the_model_and_takes_no_slot(server: LiveServer) -> None:
    async with connect(server) as first, connect(server) as second:
        for client in (first, second):
            await send(client, Describe(), Ping("are you there?"))
            info, pong = await read(client, "pong")
            (program,) = Info.from_event(info).asr
            assert program.supports_transcript_streaming
            assert [model.name for model in program.models] == ["scripted"]
            assert program.models[0].languages == ["en"]
            assert Pong.from_event(pong).text == "are you there?"
    assert not server.service.engine.active


@pytest.mark.parametrize(("rate", "width", "channels"), [(16_000, 2, 1), (48_000, 2, 2), (22_050, 4, 1), (8_000, 1, 1)])
async def test_utterances_one_after_another(server: LiveServer, rate: int, width: int, channels: int) -> None:
    async with connect(server) as client:
        for _ in range(2):
            await send(client, *utterance(rate=rate, width=width, channels=channels))
            check_transcript(await read(client), TEXT)


async def test_chunks_arrive_before_the_audio_stops(server: LiveServer) -> None:
    *audio, stop = utterance()
    async with connect(server) as client:
        await send(client, *audio)
        chunk = await read(client, "transcript-chunk")
        assert [event.type for event in chunk] == ["transcript-start", "transcript-chunk"]
        await send(client, stop)
        check_transcript([*chunk, *await read(client)], TEXT)


async def test_silence_has_an_empty_transcript(server: LiveServer) -> None:
    async with connect(server) as client:
        await send(client, AudioStart(16_000, 2, 1), AudioStop())
        check_transcript(await read(client), "")


async def test_slot_is_free_after_the_transcript_and_after_a_lost_connection(server: LiveServer) -> None:
    engine = server.service.engine
    async with connect(server) as client, connect(server) as other:
        await send(client, *utterance(1.0))
        await read(client)
        assert engine.active == 0
        await send(other, AudioStart(16_000, 2, 1))
        await until(lambda: engine.active == 1)
        await send(client, AudioStart(16_000, 2, 1))
        assert [event.data["code"] for event in await read(client)] == ["full"]
    await until(lambda: engine.active == 0)


INVALID = {
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", "bad_frame"),
    "a line without an end": (b'{"type": "' + b"x" * (1 << 17), "too_big"),
    "an array": (b"[]\n", "bad_frame"),
    "a number as type": (b'{"type": 7}\n', "bad_frame"),
    "data that is no object": (b'{"type": "describe", "data": [1]}\n', "bad_frame"),
    "nested data": (b'{"type": "describe", "data_length": 60000}\n' + b"[" * 60_000, "bad_frame"),
    "a huge payload": (b'{"type": "audio-chunk", "payload_length": 99999999999}\n', "too_big"),
    "huge data": (b'{"type": "audio-chunk", "data_length": 99999999}\n', "too_big"),
    "a negative length": (b'{"type": "audio-chunk", "payload_length": -1}\n', "bad_frame"),
    "no rate": (b'{"type": "audio-start", "data": {"width": 2, "channels": 1}}\n', "bad_parameter"),
    "a text as width": (
        b'{"type": "audio-start", "data": {"rate": 16000, "width": "2", "channels": 1}}\n',
        "bad_parameter",
    ),
    "a list of channels": (
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": [1]}}\n',
        "bad_parameter",
    ),
    "five channels": (
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 5}}\n',
        "bad_parameter",
    ),
    "a number as model": (b'{"type": "transcribe", "data": {"name": 7}}\n', "bad_frame"),
}


@pytest.mark.parametrize(("sent", "code"), INVALID.values(), ids=INVALID)
def test_invalid_event_gets_an_error(server: LiveServer, sent: bytes, code: str) -> None:
    answers = exchange(server, sent)
    assert [answer["type"] for answer in answers] == ["error"]
    assert answers[0]["data"]["code"] == code, answers
    assert answers[0]["data"]["text"]


@pytest.mark.parametrize(
    "sent", [b"", b'{"type": "audio-chunk", "payload_le', b'{"type": "x", "payload_length": 9}\n12']
)
def test_connection_that_ends_within_an_event(server: LiveServer, sent: bytes) -> None:
    assert exchange(server, sent, half_close=True) in ([], exchange(server, b"{\n"))


def test_unknown_events_are_ignored(server: LiveServer) -> None:
    sent = b'{"type": "voice-started", "data_length": 2, "payload_length": 3}\n{}abc{"type": "audio-stop"}\n'
    assert [answer["type"] for answer in exchange(server, sent + b'{"type": "ping"}\n', half_close=True)] == ["pong"]


def exchange(server: LiveServer, sent: bytes, *, half_close: bool = False) -> list[dict[str, Any]]:
    """Send bytes and return the answers up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=10) as peer:
        peer.sendall(sent)
        if half_close:
            peer.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in peer.makefile("rb")]


def test_client_that_does_not_read_is_cut() -> None:
    with LiveServer(wyoming_port=0) as server, socket.create_connection(("127.0.0.1", port_of(server))) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(10)
        with pytest.raises(ConnectionError):
            for _ in range(2000):
                peer.sendall(b'{"type": "describe"}\n' * 1000)


async def test_idle_clients_are_closed() -> None:
    with LiveServer(wyoming_port=0, idle_seconds=1.0) as server:
        async with connect(server) as idle, connect(server) as silent:
            await send(silent, AudioStart(16_000, 2, 1))
            for client in (idle, silent):
                (error,) = await read(client)
                assert error.data["text"] == "no message was received for 1 s"
            await until(lambda: not server.service.engine.active)


async def test_utterance_that_the_server_interrupts_has_no_transcript() -> None:
    """Home Assistant would carry out part of a command."""
    *audio, _ = utterance()
    with LiveServer(wyoming_port=0) as server:
        async with connect(server) as client, connect(server) as idle:
            await send(client, *audio)
            await read(client, "transcript-chunk")
            server.terminate()
            events = await read(client)
            assert await read(idle) == []
    assert [event.data["code"] for event in events if event.type != "transcript-chunk"] == ["restarting"]


async def test_clients_without_a_key_share_limits() -> None:
    with LiveServer(wyoming_port=0, api_keys=["key"], host="127.0.0.1", key_streams=1) as server:
        async with connect(server) as first, connect(server) as second:
            await send(first, AudioStart(16_000, 2, 1))
            await until(lambda: server.service.engine.active == 1)
            await send(second, AudioStart(16_000, 2, 1))
            (error,) = await read(second)
        assert error.data["code"] == "quota"


async def test_metrics_count_utterances(server: LiveServer) -> None:
    async with connect(server) as client:
        await send(client, *utterance(1.0))
        await read(client)
    text = httpx.get(server.http("/metrics")).text
    assert 'tympan_sessions_total{code="1000",protocol="wyoming"}' in text


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="cannot listen on 127"):
        LiveServer(wyoming_port=other.getsockname()[1]).__enter__()


def test_open_port_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(wyoming_port=0, wyoming_host="0.0.0.0", log_level="info"):
        pass
    assert "Wyoming clients need no key" in capfd.readouterr().err


def test_address_limit_counts_wyoming_clients() -> None:
    port = free_port()
    with LiveServer(wyoming_port=port, address_connections=1) as server:
        address = ("127.0.0.1", port)
        with socket.create_connection(address) as first, socket.create_connection(address, timeout=10) as second:
            assert second.recv(1) == b""
            first.sendall(b'{"type": "ping"}\n')
            assert first.recv(1)
        wait_until(lambda: not server.runner.wyoming._connections)  # type: ignore[attr-defined]


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tympan.server.wyoming.server", None)
    with pytest.raises(MissingPackageError, match=r"the Wyoming protocol needs the package .*\[wyoming\]"):
        LiveServer(wyoming_port=0).__enter__()


async def test_command(tmp_path: Path) -> None:
    """The command runs on uvloop where it is installed; a signal ends it, and a client that is connected."""
    port = free_port()
    command = [sys.executable, "-m", "tympan", "serve", "--model=scripted", "--port=0", f"--wyoming-port={port}"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        await until(lambda: f"served on tcp://127.0.0.1:{port}" in (tmp_path / "log").read_text())
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await send(client, *utterance())
            check_transcript(await read(client), TEXT)
            process.send_signal(signal.SIGTERM)
            assert await read(client) == []
    assert process.returncode == -signal.SIGTERM

"""Clients that send a whole file at once to a server that works at the speed of speech, or stops to read.

Such a client sends pings behind its audio and gives up without an answer: `websockets`, on which OpenAI's, vLLM's and
Kyutai's clients are built, after 20 s.
"""

from __future__ import annotations

import asyncio
import base64
import json

import msgspec
import numpy as np
import pytest
from support.kyutai_wire import audio
from support.server import LiveServer, PlainServer
from support.waiting import wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tympan.config import LimitSettings
from tympan.engine.scripted import scripted_words
from tympan.protocols.kyutai import KyutaiProtocol
from tympan.server import spool
from tympan.server.sessions import backlog

SECONDS = 600
FRAME = bytes(3840)
Message = str | bytes


def pcm(rate: int) -> bytes:
    """Return a second of silence."""
    return bytes(2 * rate)


def in_json(kind: str, field: str, rate: int) -> str:
    return json.dumps({"type": kind, field: base64.b64encode(pcm(rate)).decode()})


CLIENTS: dict[str, tuple[str, list[Message], Message, Message]] = {
    # Name: address, first messages, a second of audio, request for the last words.
    "native": ("/v1/stream?events=word", [], pcm(24_000), "EOS"),
    "kyutai": (
        "/api/asr-streaming",
        [],
        audio(np.zeros(24_000, np.float32)),
        msgspec.msgpack.encode({"type": "Marker", "id": 1}),
    ),
    "openai": (
        "/v1/realtime",
        [],
        in_json("input_audio_buffer.append", "audio", 24_000),
        '{"type": "input_audio_buffer.commit"}',
    ),
    "vllm": (
        "/v1/realtime",
        ['{"type": "session.update", "model": "m"}', '{"type": "input_audio_buffer.commit"}'],
        in_json("input_audio_buffer.append", "audio", 16_000),
        '{"type": "input_audio_buffer.commit", "final": true}',
    ),
    "deepgram": ("/v1/listen?encoding=linear16&sample_rate=16000", [], pcm(16_000), '{"type": "CloseStream"}'),
    "flux": ("/v2/listen?encoding=linear16&sample_rate=16000", [], pcm(16_000), '{"type": "CloseStream"}'),
    "gradium": (
        "/api/speech/asr",
        ['{"type": "setup"}'],
        in_json("audio", "audio", 24_000),
        '{"type": "end_of_stream"}',
    ),
}


async def read(messages: asyncio.Queue[Message], socket: ClientConnection) -> None:
    async for message in socket:
        messages.put_nowait(message)


async def send_ahead(server: LiveServer, name: str) -> None:
    """Send everything, wait in silence for longer than the idle limit, and check that words still come."""
    path, setup, second, last = CLIENTS[name]
    async with connect(server.url(path), ping_interval=1, ping_timeout=20, max_queue=None) as socket:
        received: asyncio.Queue[Message] = asyncio.Queue()
        reader = asyncio.create_task(read(received, socket))
        async with asyncio.timeout(25):
            for message in (*setup, *[second] * SECONDS, last):
                await socket.send(message)
            await (await socket.ping())
        await asyncio.sleep(2.5)
        while not received.empty():
            received.get_nowait()
        async with asyncio.timeout(20):
            await (await socket.ping())
            await received.get()
        assert socket.close_code is None, name
        await socket.close()
        await reader


@pytest.mark.timeout(120)
async def test_ten_minutes_at_once() -> None:
    """All of it is accepted, pings are answered, and the idle limit does not end a stream that awaits its words.

    The engine works at nearly the speed of speech, so that ten minutes of audio take eight.
    """
    with LiveServer(step_ms=65, idle_seconds=1) as server:
        ended = await asyncio.gather(*(send_ahead(server, name) for name in CLIENTS), return_exceptions=True)
        assert dict(zip(CLIENTS, ended, strict=True)) == dict.fromkeys(CLIENTS)
        wait_until(lambda: not server.service.engine.active)
        assert server.service.spool.waiting.used == 0


@pytest.mark.parametrize("kind", [LiveServer, PlainServer], ids=["picows", "ASGI"])
async def test_everything_on_disk_is_transcribed(kind: type[LiveServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Words, the answer to a flush between the audio, and the end arrive in order."""
    monkeypatch.setattr(spool, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(backlog, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(backlog, "MEMORY_BYTES", 60_000)
    written: list[int] = []
    write = spool._write

    def counted(descriptor: int, slot: int, block: bytes) -> None:
        written.append(len(block))
        write(descriptor, slot, block)

    monkeypatch.setattr(spool, "_write", counted)
    with kind(step_ms=0.5, backlog_seconds=0.4) as server:
        async with connect(server.url(events="word"), max_queue=None) as socket:
            for half in range(2):
                for _ in range(300):
                    await socket.send(FRAME)
                await socket.send(json.dumps({"type": "flush", "id": half}))
            await socket.send("EOS")
            messages = [json.loads(message) async for message in socket if "silence" not in str(message)]
        assert socket.close_code == 1000
        wait_until(lambda: not server.service.engine.active)
        assert server.service.spool.waiting.used == 0
    first = len(scripted_words(300))
    assert [message["text"] for message in messages if message["type"] == "word"] == [
        word.text for word in scripted_words(600)
    ]
    assert messages[first] == {"type": "flushed", "id": 0}
    assert [message["type"] for message in messages[-2:]] == ["flushed", "complete"]
    assert len(written) > 10


async def test_reading_stops_at_the_limit_of_a_stream() -> None:
    with LiveServer(step_ms=65, backlog_bytes=500_000) as server:
        async with connect(server.url(), ping_interval=None, close_timeout=0.1) as socket:

            async def send() -> None:
                for _ in range(10_000):
                    await socket.send(bytes(4_000))

            sending = asyncio.create_task(send())
            wait_for = asyncio.get_running_loop().time() + 1.5
            most = 0
            while asyncio.get_running_loop().time() < wait_for:
                most = max(most, server.service.spool.waiting.used)
                await asyncio.sleep(0.01)
            assert not sending.done()
            assert 500_000 <= most <= 500_000 + 64_000
            sending.cancel()
            socket.transport.abort()


# --- Idle limits ------------------------------------------------------------------------------------------------------


async def test_no_idle_limit_while_an_answer_is_owed() -> None:
    """The audio fits into the engine's queue, and the client waits in silence for the answer to its flush."""
    with LiveServer(step_ms=400, idle_seconds=0.5) as server:
        async with connect(server.url(events="word")) as socket:
            await socket.send(FRAME * 8)
            await socket.send('{"type": "flush", "id": 1}')
            messages = []
            with pytest.raises(ConnectionClosed):
                while True:
                    async with asyncio.timeout(20):
                        messages.append(json.loads(await socket.recv()))
    assert {"type": "flushed", "id": 1} in messages
    assert messages[-1]["code"] == "idle", "afterwards the limit applies"


def idle_message(message: Message) -> str:
    fields = json.loads(message) if isinstance(message, str) else msgspec.msgpack.decode(message)
    return str(fields["message"])


async def test_idle_limit_of_kyutai() -> None:
    """Twice that of other protocols: with the defaults 120 s, as in moshi-server."""
    assert KyutaiProtocol.idle_factor * LimitSettings().idle_seconds == 120
    with LiveServer(idle_seconds=1) as server:
        async with connect(server.url("/api/asr-streaming")) as kyutai, connect(server.url(events="word")) as native:
            assert idle_message(await native.recv()) == "no message was received for 1 s"
            assert kyutai.close_code is None
            await kyutai.recv()  # Ready
            assert idle_message(await kyutai.recv()) == "no message was received for 2 s"

"""Connections that are lost under the SDK, on the way to the real server: its user does not notice."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from support.proxy import Proxy
from support.server import LiveServer, PlainServer

import tympan
from tympan.client.backoff import Backoff
from tympan.engine.scripted import scripted_words
from tympan.messages import Complete, Event, Flushed, Ready, Word

FRAME = bytes(3840)
HANDSHAKE_BYTES = 2_000  # the first connection must come so far: a wrong address is not tried again
PATIENT = Backoff(attempts=100, first_seconds=0.01, longest_seconds=0.05)


@pytest.fixture(scope="module", params=[LiveServer, PlainServer], ids=["our sockets", "ASGI"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with request.param() as server:
        yield server


def connect(proxy: Proxy, encoding: str = "s16le") -> tympan.Stream:
    return tympan.connect(proxy.url, encoding=encoding, backoff=PATIENT)


async def chunks(data: bytes, dice: random.Random) -> AsyncIterator[bytes]:
    while data:
        size = dice.randint(1, 12_000)
        yield data[:size]
        data = data[size:]
        await asyncio.sleep(dice.choice([0, 0, 0.003]))


def budgets(dice: random.Random, count: int) -> list[int]:
    """Bytes after which connections are cut: in the handshake, in audio, in messages, anywhere."""
    return [dice.randint(HANDSHAKE_BYTES, 60_000), *(dice.choice([300, 3_000, 90_000]) for _ in range(count))]


def words_of(events: list[Event]) -> list[Word]:
    return [event for event in events if isinstance(event, Word)]


@pytest.mark.parametrize("half_open", [False, True])
@pytest.mark.parametrize("seed", range(5))
async def test_cut_anywhere(server: LiveServer, seed: int, half_open: bool) -> None:
    dice = random.Random(seed)
    async with (
        Proxy(server.port, budgets(dice, 8), half_open) as proxy,
        connect(proxy) as stream,
    ):
        events = [event async for event in stream.transcribe(chunks(FRAME * 150, dice))]
    assert proxy.connections > 3
    assert words_of(events) == scripted_words(150)
    assert events[-1] == Complete(12.0, 20)
    assert [type(event) for event in events].count(Ready) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_container_resumes(server: LiveServer, seed: int) -> None:
    dice = random.Random(seed)
    wav = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    wav += b"data" + struct.pack("<I", 150 * len(FRAME)) + FRAME * 150
    async with Proxy(server.port, budgets(dice, 5)) as proxy, connect(proxy, "auto") as stream:
        events = [event async for event in stream.transcribe(chunks(wav, dice))]
    assert proxy.connections > 1
    assert words_of(events) == scripted_words(150)


async def test_cut_during_a_flush(server: LiveServer) -> None:
    async with Proxy(server.port) as proxy, connect(proxy) as stream:
        for marker in range(1, 9):
            await stream.send(FRAME * 12)
            assert await stream.flush() == marker
            proxy.cut()
        await stream.finish()
        events = [event async for event in stream]
    assert [event.marker for event in events if isinstance(event, Flushed)] == list(range(1, 9))
    assert [word.text for word in words_of(events)] == [word.text for word in scripted_words(96)]
    assert isinstance(events[-1], Complete)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.2])
async def test_cut_after_finish(after: float) -> None:
    with LiveServer(step_ms=2) as server:
        async with Proxy(server.port) as proxy, connect(proxy) as stream:
            await stream.send(FRAME * 50)
            await stream.finish()
            await asyncio.sleep(after)
            proxy.cut()
            events = [event async for event in stream]
    assert words_of(events) == scripted_words(50)
    assert events[-1] == Complete(4.0, len(scripted_words(50)))


async def test_return_after_the_resume_limit() -> None:
    """The server gave the slot away; what it had not transcribed is heard by the next session."""
    with LiveServer(resume_seconds=0.5) as server:
        async with Proxy(server.port) as proxy, connect(proxy) as stream:
            await stream.send(FRAME * 24)
            marker = await stream.flush()
            events: list[Event] = []
            async for event in stream:
                events.append(event)
                if event == Flushed(marker):
                    break
            server.service.connections.resumable.clear()  # as if the time had passed
            proxy.cut()
            await stream.send(FRAME * 24)
            await stream.finish()
            events += [event async for event in stream]
    assert events[-1] == Complete(pytest.approx(48 * 0.08, abs=0.002), len(words_of(events)))
    starts = [word.start for word in words_of(events)]
    assert starts == sorted(starts)
    assert [word.text for word in words_of(events)].count("word0") == 2, "the second session's script begins anew"


async def test_container_cannot_be_resent(server: LiveServer) -> None:
    with pytest.raises(tympan.ServerError) as caught:
        async with Proxy(server.port) as proxy, connect(proxy, "opus") as stream:
            await stream.send(b"OggS")
            server.service.connections.resumable.clear()
            proxy.cut()
            async for _event in stream:
                pass
    assert (caught.value.reason, caught.value.close_code) == ("connection_lost", 1006)


async def test_server_without_resume() -> None:
    with LiveServer(resume_seconds=0) as server:
        async with Proxy(server.port) as proxy, connect(proxy) as stream:
            await stream.send(FRAME * 24)
            proxy.cut()
            await stream.send(FRAME * 24)
            await stream.finish()
            events = [event async for event in stream]
    assert events[-1] == Complete(pytest.approx(48 * 0.08, abs=0.002), len(words_of(events)))

"""Backpressure, cancellation and closing, with a transport that does what the test says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Mapping

import numpy as np
import pytest

import tympan
from tympan.client.stream import Stream
from tympan.client.transport import NoConnectionError
from tympan.messages import Complete, Event, Ready, Word

READY = """{"type": "ready", "session": "s", "model": "m", "engine": "e",
"sample_rate": 24000, "delay_seconds": 0.5, "pause_horizons": []}"""
WORD = '{"type":"word","text":"a","start":0.0,"end":0.1,"confidence":1.0}'
COMPLETE = '{"type":"complete","status":"complete","audio_seconds":0.0,"words":0}'


class Line:
    """A connection in memory. `gate` lets frames through; `answers` are what the server says."""

    def __init__(self, *answers: str | NoConnectionError) -> None:
        self.answers: asyncio.Queue[str | NoConnectionError] = asyncio.Queue()
        for answer in answers:
            self.answers.put_nowait(answer)
        self.gate = asyncio.Event()
        self.gate.set()
        self.offered = asyncio.Event()
        self.taken: list[str | bytes] = []
        self.closes = 0

    async def has_taken(self, count: float) -> None:
        """Until so many bytes have come. An open gate never waits: too many would come in the same turn of the loop."""
        while sum(len(frame) for frame in self.taken) < count:
            self.offered.clear()
            await self.offered.wait()
        assert sum(len(frame) for frame in self.taken) == count

    async def open(self, url: str, headers: Mapping[str, str]) -> Line:
        return self

    async def send(self, frame: str | bytes) -> None:
        self.offered.set()
        await self.gate.wait()
        self.taken.append(frame)

    async def receive(self) -> str | bytes:
        answer = await self.answers.get()
        if isinstance(answer, NoConnectionError):
            raise answer
        return answer

    async def close(self) -> None:
        self.closes += 1


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    yield
    gc.collect()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def connect(line: Line) -> Stream:
    return tympan.connect("ws://line", transport=line.open)


async def test_send_waits_for_the_socket(no_task_left: None) -> None:
    line = Line(READY)
    line.gate.clear()
    async with connect(line) as stream:
        sending = asyncio.create_task(stream.send(np.zeros(100, np.float32)))
        await line.offered.wait()
        assert not sending.done()
        line.gate.set()
        await sending
        assert line.taken == [bytes(200)]


async def test_audio_in_flight_is_limited(no_task_left: None) -> None:
    """A fast sender waits for the server's `lag`, not only for the socket."""
    line = Line(READY)
    second = 48_000
    async with connect(line) as stream:
        sending = asyncio.create_task(stream.send(bytes(25 * second)))
        await line.has_taken(10 * second)
        line.answers.put_nowait('{"type":"lag","received":10,"processed":9.5,"behind":0.5}')
        await line.has_taken(19.5 * second)
        assert not sending.done()
        line.answers.put_nowait('{"type":"lag","received":19.5,"processed":19,"behind":0.5}')
        await sending
        await line.has_taken(25 * second)


async def test_cancelled_send(no_task_left: None) -> None:
    line = Line(READY)
    line.gate.clear()
    async with connect(line) as stream:
        sending = asyncio.create_task(stream.send(b"ab"))
        await line.offered.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        line.gate.set()
        await stream.send(b"cd")
        assert b"".join(frame for frame in line.taken if isinstance(frame, bytes)) == b"abcd"


async def test_idle_stream_closes(no_task_left: None) -> None:
    line = Line(READY)
    async with connect(line) as stream:
        assert stream.ready.model == "m"
    assert line.closes > 0


async def test_left_before_its_task_ran(no_task_left: None) -> None:
    line = Line(READY)
    async with connect(line):
        pass
    assert line.closes > 0


async def test_error_in_the_body(no_task_left: None) -> None:
    line = Line(READY)

    async def fail() -> None:
        async with connect(line) as stream:
            await stream.send(b"ab")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert line.closes > 0


async def test_cancelled_reader(no_task_left: None) -> None:
    line = Line(READY)
    reading = asyncio.Event()

    async def read() -> None:
        async with connect(line) as stream:
            async for _event in stream:
                reading.set()

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.closes > 0


async def test_cancelled_while_connecting(no_task_left: None) -> None:
    line = Line()  # never says that it is ready
    task = asyncio.create_task(connect(line).__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.closes == 1


async def test_transcribe_left_early(no_task_left: None) -> None:
    line = Line(READY)

    async def silence() -> AsyncIterator[bytes]:
        while True:
            yield bytes(960)
            await asyncio.sleep(0)

    async with connect(line) as stream:
        async for event in stream.transcribe(silence()):
            assert isinstance(event, Ready)
            break


async def test_error_of_the_source(no_task_left: None) -> None:
    line = Line(READY)

    def broken() -> Iterator[bytes]:
        yield b"ab"
        raise tympan.AudioError("the file ends in the middle")

    async with connect(line) as stream:
        with pytest.raises(tympan.AudioError, match="ends in the middle"):
            [event async for event in stream.transcribe(broken())]
    assert line.taken == [b"ab"]


async def test_wanted_events(no_task_left: None) -> None:
    line = Line(READY, WORD, '{"type":"lag","received":1,"processed":1,"behind":0}', COMPLETE)
    async with tympan.connect("ws://line", events="word", transport=line.open) as stream:
        await stream.finish()
        events: list[Event] = [event async for event in stream]
    assert events == [Word("a", 0.0, 0.1, 1.0), Complete(0.0, 1)]


async def test_send_after_finish(no_task_left: None) -> None:
    line = Line(READY)
    async with connect(line) as stream:
        await stream.finish()
        await stream.finish()
        with pytest.raises(RuntimeError, match="has been finished"):
            await stream.send(b"ab")
        with pytest.raises(RuntimeError, match="has been finished"):
            await stream.flush()
    assert line.taken == ['{"type": "finish"}']


async def test_keepalive(no_task_left: None) -> None:
    line = Line(READY)
    async with connect(line) as stream:
        await stream.keepalive()
    assert line.taken == ['{"type": "keepalive"}']


async def test_waiting_send_fails(no_task_left: None) -> None:
    line = Line(READY)
    line.gate.clear()
    async with connect(line) as stream:
        sending = asyncio.create_task(stream.send(b"ab"))
        await line.offered.wait()
        line.answers.put_nowait(NoConnectionError("closed", "gone", code=1008, reason="policy"))
        with pytest.raises(tympan.ServerError, match="gone"):
            await sending

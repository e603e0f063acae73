"""Servers that restart, are full, or go away: what the user of a stream sees."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from support.native_double import RATE, Life, NativeDouble, Refusal, ramp

import tympan
from tympan.client.backoff import Backoff
from tympan.client.stream import Stream
from tympan.messages import Complete, Event, Flushed, Ready, Segment, Turn, Word


class Waits(list[float]):
    """Remembers the waits of a backoff and does not wait."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def connect(waits: Waits) -> Callable[[str], Stream]:
    def connect_at_8k(url: str, encoding: str = "s16le", attempts: int = 3) -> Stream:
        backoff = Backoff(attempts=attempts, sleep=waits)
        return tympan.connect(url, encoding=encoding, sample_rate=RATE, backoff=backoff, token="key")

    return connect_at_8k


def chunks(data: bytes, size: int = 1_001) -> Iterable[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


async def received(stream: Stream, source: Iterable[bytes]) -> list[Event]:
    return [event async for event in stream.transcribe(source)]


def assert_gapless(lives: list[Life], data: bytes) -> None:
    """Together the servers heard all of `data`; what one heard twice is below the wire's rounding."""
    position = 0
    for life in lives:
        assert life.received, "a connection for nothing"
        start = int(np.frombuffer(bytes(life.received[:2]), "<i2")[0]) * 2
        assert position - 2 * RATE * 0.0015 <= start <= position
        assert bytes(life.received) == data[start : start + len(life.received)]
        position = start + len(life.received) // 2 * 2
    assert position == len(data)


@pytest.mark.parametrize("cuts", [[8_000], [8_000, 3], [3, 8_001, 12_345], [4_000] * 4])
async def test_restart_keeps_the_clock(cuts: list[int], connect: Callable[..., Stream]) -> None:
    data = ramp(3.0)
    async with NativeDouble([*(Life(cut) for cut in cuts), Life()]) as server, connect(server.url) as stream:
        events = await received(stream, chunks(data))
    assert_gapless(server.used, data)

    assert [type(event) for event in events].count(Ready) == 1
    assert isinstance(events[0], Ready)
    assert [type(event) for event in events].count(Complete) == 1
    words = [event for event in events if isinstance(event, Word)]
    assert events[-1] == Complete(pytest.approx(3.0, abs=0.001), len(words))
    # A word is named after the sample that it begins with: its time on the stream's clock must say the same.
    assert [word.start * RATE for word in words] == pytest.approx([int(word.text) for word in words], abs=0.01)


async def test_restart_in_silence(connect: Callable[..., Stream]) -> None:
    """No word says how far the old server came: nothing may be sent twice."""
    data = ramp(2.0)
    lives = [Life(16_000, words=False), Life(words=False)]
    async with NativeDouble(lives) as server, connect(server.url) as stream:
        events = await received(stream, chunks(data))
    assert_gapless(server.used, data)
    assert events[-1] == Complete(pytest.approx(2.0, abs=0.001), 0)


async def test_restart_resends_without_new_audio(connect: Callable[..., Stream]) -> None:
    """Only the first connection is ever written to by `send`; the stream's own task does the rest."""
    data = ramp(2.0)
    async with NativeDouble([Life(4_000), Life()]) as server, connect(server.url) as stream:
        await stream.send(data)
        await stream.finish()
        words = [event.text async for event in stream if isinstance(event, Word)]
    assert_gapless(server.used, data)
    assert words[0] == "0"


async def test_restart_after_the_last_answer(connect: Callable[..., Stream]) -> None:
    data = ramp(1.0)
    async with NativeDouble([Life(finish_code=1012)]) as server, connect(server.url) as stream:
        events = await received(stream, chunks(data))
    assert events[-1] == Complete(1.0, 4)
    assert len(server.requests) == 1


async def test_flush_across_a_restart(
    connect: Callable[..., Stream],
) -> None:
    async with NativeDouble([Life(8_000), Life()]) as server, connect(server.url) as stream:
        await stream.send(ramp(0.25))
        first = await stream.flush()
        await stream.send(ramp(0.5))
        second = await stream.flush()
        await stream.finish()
        markers = [event.marker async for event in stream if isinstance(event, Flushed)]
    assert markers == [first, second] == [1, 2]
    assert [life.flushes for life in server.used] == [[1], [2]]


async def test_restart_within_a_word(connect: Callable[..., Stream]) -> None:
    """The first server says two words and three quarters of a third, which is kept back and heard again."""
    data = ramp(2.0)
    async with NativeDouble([Life(11_000, restarting=True), Life()]) as server, connect(server.url) as stream:
        events = await received(stream, chunks(data))
    first, second = server.used
    assert bytes(first.received) == data[:11_000]
    again = int(np.frombuffer(bytes(second.received[:2]), "<i2")[0])
    assert again == pytest.approx(0.5 * RATE, abs=0.0015 * RATE)
    assert bytes(second.received) == data[2 * again :]
    words = [event for event in events if isinstance(event, Word)]
    assert [word.start for word in words[:8]] == pytest.approx([number / 4 for number in range(8)], abs=0.002)
    assert [word.end - word.start for word in words[:8]] == pytest.approx([0.25] * 8, abs=0.002)
    assert events[-1] == Complete(pytest.approx(2.0, abs=0.001), len(words))
    # What was told of the first session is a segment of its own; its turn ends with it.
    assert [type(event) for event in events[:6]] == [Ready, Word, Word, Segment, Turn, Word]
    assert events[3] == Segment(f"{words[0].text} {words[1].text}", 0.0, 0.5)


async def test_restart_without_return(
    connect: Callable[..., Stream],
) -> None:
    async with NativeDouble([Life(11_000, restarting=True)]) as server, connect(server.url, attempts=0) as stream:
        heard: list[Event] = []
        with pytest.raises(tympan.ServerError, match="1012"):
            async for event in stream.transcribe(chunks(ramp(2.0))):
                heard += [event]
    assert [event.end for event in heard if isinstance(event, Word)] == [0.25, 0.5, 0.6875]
    assert len(server.used) == 1


async def test_engine_failure(connect: Callable[..., Stream]) -> None:
    """1011 comes without a last word: half a word was heard, and is heard again."""
    data = ramp(2.0)
    async with (
        NativeDouble([Life(11_000, code=1011, complete=False, error=("internal", "internal error")), Life()]) as server,
        connect(server.url) as stream,
    ):
        words = [event async for event in stream.transcribe(chunks(data)) if isinstance(event, Word)]
    assert [word.start * RATE for word in words] == pytest.approx([int(word.text) for word in words], abs=0.01)


async def test_audio_that_fails_every_server(connect: Callable[..., Stream]) -> None:
    lives = [Life(9_000, code=1011, complete=False, error=("internal", "internal error")) for _ in range(9)]
    async with NativeDouble(lives) as server:
        with pytest.raises(tympan.ServerError, match="internal error"):
            async with connect(server.url) as stream:
                await received(stream, chunks(ramp(0.6)))
        assert len(server.used) <= 1 + 3 + 1, "three attempts, and one more for the words of the first"


async def test_slow_reader(connect: Callable[..., Stream]) -> None:
    """1013 without `complete`: half a word was heard and not released, so it is heard again."""
    data = ramp(2.0)
    async with (
        NativeDouble([Life(11_000, code=1013, complete=False), Life()]) as server,
        connect(server.url) as stream,
    ):
        events = await received(stream, chunks(data))
    words = [event for event in events if isinstance(event, Word)]
    assert [word.start * RATE for word in words] == pytest.approx([int(word.text) for word in words], abs=0.01)
    assert [word.start for word in words[:4]] == pytest.approx([0.0, 0.25, 0.5, 0.75], abs=0.002)


async def test_full_server_retry_after(
    connect: Callable[..., Stream], waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tympan")
    refusals = [Refusal(503, "full", "every slot is taken", "7"), Refusal(503, "restarting", "back soon")]
    async with NativeDouble([Life()], refusals) as server, connect(server.url) as stream:
        events = await received(stream, [ramp(0.5)])
    assert isinstance(events[-1], Complete)
    assert 7.0 <= waits[0] <= 9.0
    assert 0.5 <= waits[1] <= 1.0
    assert "every slot is taken; trying again in" in caplog.messages[0]
    assert "(attempt 1 of 3)" in caplog.messages[0]


async def test_server_stays_full(connect: Callable[..., Stream], waits: Waits) -> None:
    async with NativeDouble([], [Refusal(503, "full", "every slot is taken", "1")] * 9) as server:
        with pytest.raises(tympan.ServerError, match="every slot is taken") as caught:
            await connect(server.url).__aenter__()
        assert (caught.value.reason, caught.value.close_code) == ("full", None)
        assert len(waits) == 3
        assert len(server.requests) == 4


async def test_repeated_close_1013(connect: Callable[..., Stream]) -> None:
    async with NativeDouble([Life(0, code=1013, complete=False) for _ in range(9)]) as server:
        with pytest.raises(tympan.ServerError) as caught:
            async with connect(server.url) as stream:
                await received(stream, chunks(ramp(1.0)))
        assert (caught.value.reason, caught.value.close_code) == ("full", 1013)
        assert len(server.used) == 4


async def test_restart_attempts_are_limited(connect: Callable[..., Stream], waits: Waits) -> None:
    async with NativeDouble([Life(4_000)]) as server, connect(server.url) as stream:
        await stream.send(ramp(0.1))
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)  # the port is closed, the connection still open
        with pytest.raises(tympan.ServerError):
            await received(stream, chunks(ramp(2.0)))
        await stopping


async def test_progress_resets_attempts(connect: Callable[..., Stream]) -> None:
    """Six restarts are more than three attempts, but each server transcribed something."""
    data = ramp(3.0)
    async with NativeDouble([*(Life(6_000) for _ in range(6)), Life()]) as server, connect(server.url) as stream:
        events = await received(stream, chunks(data))
    assert_gapless(server.used, data)
    assert isinstance(events[-1], Complete)


async def test_container_cannot_be_restarted(connect: Callable[..., Stream]) -> None:
    async with NativeDouble([Life(4_000)]) as server:
        with pytest.raises(tympan.ServerError) as caught:
            async with connect(server.url, encoding="auto") as stream:
                await received(stream, chunks(ramp(1.0)))
    assert (caught.value.reason, caught.value.close_code) == ("restarting", 1012)


@pytest.mark.parametrize("code", [1003, 1007, 1008, 1009])
async def test_server_errors(code: int, connect: Callable[..., Stream]) -> None:
    life = Life(100, code=code, error=("some_code", "some sentence"))
    async with NativeDouble([life]) as server, connect(server.url) as stream:
        with pytest.raises(tympan.ServerError, match="some sentence") as caught:
            await received(stream, chunks(ramp(1.0)))
        with pytest.raises(tympan.ServerError, match="some sentence"):
            await stream.send(b"too late")
    assert (caught.value.reason, caught.value.close_code) == ("some_code", code)


async def test_close_without_complete(connect: Callable[..., Stream]) -> None:
    async with NativeDouble([Life(100, code=1000, complete=False)]) as server:
        with pytest.raises(tympan.ServerError, match="incomplete"):
            async with connect(server.url) as stream:
                await received(stream, chunks(ramp(1.0)))


async def test_permanent_refusals(connect: Callable[..., Stream], waits: Waits) -> None:
    async with NativeDouble([], [Refusal(401, "unauthorized", "that key is not known")]) as server:
        with pytest.raises(tympan.ServerError, match="that key is not known") as caught:
            await connect(server.url).__aenter__()
        assert caught.value.reason == "unauthorized"
        assert server.requests[0].headers["Authorization"] == "Bearer key"
        query = parse_qs(urlsplit(server.requests[0].path).query)
        assert query["events"] == ["ready,word,lag,partial,segment,turn"]
    with pytest.raises(tympan.ServerError, match="cannot reach 127") as caught:
        await connect(server.url).__aenter__()
    assert caught.value.reason == "unreachable"
    assert waits == []


async def test_other_protocol(connect: Callable[..., Stream]) -> None:
    class Other(NativeDouble):
        @staticmethod
        async def _say(socket: object, kind: str, **fields: object) -> None:
            await socket.send(b"\x00" if kind == "ready" else json.dumps(fields))  # type: ignore[attr-defined]

    async with Other([Life()]) as server:
        with pytest.raises(tympan.ServerError, match="not of this protocol") as caught:
            await connect(server.url).__aenter__()
    assert caught.value.reason == "bad_message"

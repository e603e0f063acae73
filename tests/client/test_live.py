"""The client against the real server."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from support.server import LiveServer
from support.speech import clip, word_error_rate

import tympan
from tympan.client import transport
from tympan.client.backoff import Backoff
from tympan.engine.scripted import scripted_words
from tympan.messages import Complete, Event, Flushed, Lag, Partial, Ready, Samples, Segment, Turn, Vad, Word

RATE = 24_000
FRAME_SECONDS = 0.08


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with LiveServer(model="scripted") as server:
        yield server.url("")


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    with LiveServer(model="embedded", max_streams=1) as server:
        yield server.url("")


def silence(seconds: float, block_seconds: float = 0.5) -> Iterator[Samples]:
    whole = np.zeros(round(seconds * RATE), np.float32)
    block = round(block_seconds * RATE)
    return (whole[start : start + block] for start in range(0, len(whole), block))


def words_of(events: list[Event]) -> list[Word]:
    return [event for event in events if isinstance(event, Word)]


async def test_every_event_of_a_stream(scripted: str) -> None:
    async with tympan.connect(scripted) as stream:
        assert stream.ready.model == "scripted"
        events = [event async for event in stream.transcribe(silence(12.0))]
    assert isinstance(events[0], Ready)
    assert words_of(events) == scripted_words(150)
    assert events[-1] == Complete(12.0, 20)
    kinds = {type(event) for event in events}
    assert {Partial, Segment, Turn, Lag} <= kinds
    assert Vad not in kinds


@pytest.mark.parametrize("encoding", ["s16le", "f32le"])
async def test_real_speech(embedded: str, encoding: str) -> None:
    speech = clip("counting")
    async with tympan.connect(embedded, encoding=encoding, sample_rate=16_000) as stream:
        events = [event async for event in stream.transcribe([speech.samples])]
    words = words_of(events)
    assert word_error_rate(speech.text, " ".join(word.text for word in words)) <= 0.1
    assert all(0 <= word.start <= word.end <= len(speech.samples) / 16_000 + 0.1 for word in words)


def test_real_speech_sync(embedded: str) -> None:
    speech = clip("counting")
    with tympan.connect_sync(embedded, sample_rate=16_000) as stream:
        events = list(stream.transcribe(iter([speech.samples])))
    heard = " ".join(word.text for word in words_of(events))
    assert word_error_rate(speech.text, heard) <= 0.1
    assert isinstance(events[-1], Complete)


async def test_flush(scripted: str) -> None:
    async with tympan.connect(scripted, events=["word"]) as stream:
        await stream.send(np.zeros(RATE, np.float32))
        marker = await stream.flush()
        before = [event async for event in _until(stream, Flushed(marker))]
        await stream.finish()
        after = [event async for event in stream]
    assert before == scripted_words(12)
    assert after[-1] == Complete(1.0, len(before) + len(words_of(after)))


async def _until(stream: tympan.Stream, last: Event) -> AsyncIterator[Event]:
    async for event in stream:
        if event == last:
            return
        yield event


def test_sync_stream_has_the_same_methods(scripted: str) -> None:
    with tympan.connect_sync(scripted, events=["word"]) as stream:
        assert stream.ready.model == "scripted"
        stream.send(np.zeros(RATE, np.float32))
        assert stream.flush() == 1
        stream.keepalive()
        stream.finish()
        events = list(stream)
    assert Flushed(1) in events
    assert isinstance(events[-1], Complete)
    assert not [thread for thread in threading.enumerate() if thread.name == "tympan-client"]
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        stream.send(b"")


def test_sync_send_from_another_thread(scripted: str) -> None:
    with tympan.connect_sync(scripted, events=["word"]) as stream:

        def speak() -> None:
            for block in silence(12.0):
                stream.send(block)
            stream.finish()

        speaker = threading.Thread(target=speak)
        speaker.start()
        events = list(stream)
        speaker.join()
    assert words_of(events) == scripted_words(150)


def test_sync_stream_left_early(scripted: str) -> None:
    with tympan.connect_sync(scripted) as stream:
        for event in stream.transcribe(itertools.repeat(np.zeros(RATE, np.float32))):
            if isinstance(event, Word):
                break
    assert not [thread for thread in threading.enumerate() if thread.name == "tympan-client"]


def test_sync_stream_cannot_be_opened() -> None:
    with LiveServer(model="scripted") as server:
        url = server.url("")
    with pytest.raises(tympan.ServerError, match="cannot reach"), tympan.connect_sync(url):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "tympan-client"]


async def test_invalid_parameters(scripted: str) -> None:
    with pytest.raises(tympan.ServerError, match="encoding") as caught:
        await tympan.connect(scripted, encoding="mp7").__aenter__()
    assert (caught.value.reason, caught.value.close_code) == ("bad_parameter", 1008)
    with pytest.raises(tympan.ServerError) as caught:
        await tympan.connect(scripted, events=["words"]).__aenter__()
    assert caught.value.reason == "bad_parameter"


async def test_api_keys() -> None:
    with LiveServer(model="scripted", api_keys=["secret"], host="127.0.0.1") as server:
        for token in (None, "wrong"):
            with pytest.raises(tympan.ServerError) as caught:
                await tympan.connect(server.url(""), token=token).__aenter__()
            assert (caught.value.reason, caught.value.close_code) == ("unauthorized", None)
        async with tympan.connect(server.url(""), token="secret") as stream:
            assert stream.ready.model == "scripted"


async def test_full_server() -> None:
    with LiveServer(model="scripted", max_streams=1) as server:
        first = tympan.connect(server.url(""))
        await first.__aenter__()
        with pytest.raises(tympan.ServerError) as caught:
            await tympan.connect(server.url(""), backoff=Backoff(attempts=0)).__aenter__()
        assert caught.value.reason == "full"

        waits: list[float] = []

        async def leave(seconds: float) -> None:
            waits.append(seconds)
            await first.__aexit__(None, None, None)

        async with tympan.connect(server.url(""), backoff=Backoff(sleep=leave)) as second:
            events = [event async for event in second.transcribe(silence(1.0))]
        assert isinstance(events[-1], Complete)
        assert waits[0] >= 1.0, "the server's Retry-After"


async def test_server_restart() -> None:
    """One stream, two servers on the same port: one `Ready`, one `Complete`, every second counted once."""
    server = LiveServer(model="scripted")
    with server:
        backoff = Backoff(attempts=100, first_seconds=0.02, longest_seconds=0.2)
        async with tympan.connect(server.url(""), backoff=backoff) as stream:
            for block in silence(3.0):
                await stream.send(block)
            await asyncio.to_thread(server.stop)
            with LiveServer(model="scripted", port=server.port):
                for block in silence(3.0):
                    await stream.send(block)
                await stream.finish()
                events = [event async for event in stream]
    words = words_of(events)
    assert events[-1] == Complete(pytest.approx(6.0, abs=0.002), len(words))
    assert [type(event) for event in events].count(Ready) == 1
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert words[-1].end > 4.0
    assert [word.text for word in words].count("word0") == 2, "the second server's script begins anew"


async def test_silent_server_is_not_a_lost_network(scripted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "QUIET_SECONDS", 0.1)
    async with tympan.connect(scripted, events=("word",), backoff=Backoff(attempts=0)) as stream:
        await asyncio.sleep(1.0)
        events = [event async for event in stream.transcribe(silence(12.0))]
    assert words_of(events) == scripted_words(150)

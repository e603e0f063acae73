"""Engines in other processes: a stream outlives its process, and gets the events that it would have got."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.counting import COUNTING_INFO
from support.listener import Listener, frames_of
from support.speech import clip
from support.token_streams import TokenStream

from tympan.config import Config, LimitSettings, ModelSettings
from tympan.engine.base import Engine
from tympan.engine.batching import restarts
from tympan.engine.batching.scheduler import FINAL_FRAMES, Row
from tympan.engine.batching.step import flush_frames
from tympan.engine.registry import create_engine
from tympan.engine.remote.engine import RemoteEngine
from tympan.engine.remote.replay import REPLAY_FRAMES, ReplayBuffer
from tympan.engine.remote.wire import Items, Kind, frame_of, item
from tympan.errors import EngineError, ModelError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Partial, Pcm, Progress, Word
from tympan.server.engine_process import make_engine
from tympan.transcript.words import PADDING

FRAME_SECONDS = 0.08


# --- The buffer, with a model of an engine process ----------------------------------------------------------------


class Process:
    """Runs items as an engine does; the words depend on the audio: a frame of value `n > 0` begins the word `n`."""

    def __init__(self) -> None:
        self._items = Items()
        self._frames = 0
        self._pending: deque[tuple[int, Word]] = deque()  # released two frames later, or by a flush

    def run(self, data: bytes) -> Iterator[EngineEvent]:
        for _, kind, payload in self._items.feed(data):
            if kind == Kind.INTEGERS:
                yield from self._run_frame(int(frame_of(kind, payload)[0]))
            elif kind == Kind.FLUSH:
                yield from self._release(self._frames)
                yield Flushed(int.from_bytes(payload, "little"))
            elif kind == Kind.FINISH:
                yield from self._release(self._frames)
                yield Finished()

    def _run_frame(self, value: int) -> Iterator[EngineEvent]:
        start, self._frames = self._frames * FRAME_SECONDS, self._frames + 1
        if value:
            self._pending.append((self._frames, Word(f"w{value}", round(start, 6), round(start + 0.08, 6), 1.0)))
            yield Partial(f"w{value}", start)
        yield from self._release(self._frames - 2)
        yield Progress(round(self._frames * FRAME_SECONDS, 6))

    def _release(self, before: int) -> Iterator[EngineEvent]:
        while self._pending and self._pending[0][0] <= before:
            yield self._pending.popleft()[1]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.sampled_from(["frame"] * 8 + ["flush", "lost"]), max_size=60), st.booleans())
def test_no_event_is_lost_or_repeated(data: st.DataObject, steps: list[str], is_long: bool) -> None:
    """Whenever processes are lost, and however many of their events had arrived by then."""
    steps = ["frame"] * (REPLAY_FRAMES + 40 if is_long else 0) + steps
    buffer, process, numbers = ReplayBuffer(FRAME_SECONDS), Process(), iter(range(1, 1000))
    waiting: deque[EngineEvent] = deque(process.run(b"".join(buffer.replay(1, live=True))))
    received: list[EngineEvent] = []
    uninterrupted, expected = Process(), []

    def send(data: bytes) -> None:
        waiting.extend(process.run(data))

    for number, step in enumerate(steps):
        if step == "frame":
            frame = np.full(4, next(numbers) if number % 3 == 0 else 0, np.int16)
            buffer.add_frame(frame)
            content = Kind.INTEGERS, frame.tobytes()
        elif step == "flush":
            flush = buffer.add_flush(1000 + number, None)
            content = Kind.FLUSH, flush.number.to_bytes(8, "little")
        else:
            waiting.clear()
            process = Process()
            send(b"".join(buffer.replay(1, live=True)))
            continue
        packed = item(1, *content)
        send(packed)
        expected += _as_sent(uninterrupted.run(packed), 1000 + number)
        arriving = len(waiting) if is_long else data.draw(st.integers(0, len(waiting)))
        received += buffer.receive([waiting.popleft() for _ in range(arriving)])
    received += buffer.receive(list(waiting))
    assert _without_partials(received) == _without_partials(expected)
    delivered: set[str] = set()
    for event in received:
        if isinstance(event, Word):
            delivered.add(event.text)
        assert not isinstance(event, Partial) or event.text not in delivered, "a partial after its word"


def _as_sent(events: Iterator[EngineEvent], marker: int) -> list[EngineEvent]:
    return [Flushed(marker) if isinstance(event, Flushed) else event for event in events]


def _without_partials(events: list[EngineEvent]) -> list[EngineEvent]:
    return [event for event in events if not isinstance(event, Partial)]


class Pieces:
    """Every token from 10 on is a word."""

    size = 20

    def piece(self, token: int) -> str:
        return f"▁w{token}" if token >= 10 else ""


class BatchingProcess:
    """The scheduler and the words of the Kyutai engine; the token of a row depends on its number in the stream alone.

    The model gives text in most rows, so each flush is extended, and most of them as far as possible.
    """

    def __init__(self, asynchronous: bool) -> None:
        self._items = Items()
        self._seen = 0
        self._stream = TokenStream(COUNTING_INFO, Pieces(), self._next_token, asynchronous)

    def _next_token(self, row: Row) -> int:
        number = len(self._stream.tokens)
        return PADDING if number % 5 == 4 or number % 41 > 36 else 10 + number % 10

    def feed(self, data: bytes) -> None:
        for _, kind, payload in self._items.feed(data):
            if kind == Kind.INTEGERS:
                self._stream.push(1)
            elif kind == Kind.FLUSH:
                self._stream.flush(int.from_bytes(payload, "little"))
            elif kind == Kind.FINISH:
                self._stream.finish()

    def step(self) -> list[EngineEvent] | None:
        """Run one batch and return its events, or None if there is no work."""
        if not self._stream.step():
            return None
        events = self._stream.events[self._seen :]
        self._seen = len(self._stream.events)
        return events


def play_until_lost(asynchronous: bool, lost_after: int | None, unread: int = 0) -> tuple[list[EngineEvent], int]:
    """Run two turns with a flush each, and a third one; one process is lost, and another one continues.

    Args:
        asynchronous: Whether the results of a step arrive while the next one runs.
        lost_after: Steps of the first process; None for all.
        unread: Steps before them whose events were not delivered.

    Returns:
        What was delivered, and the number of steps of the first process.
    """
    buffer, process = ReplayBuffer(FRAME_SECONDS), BatchingProcess(asynchronous)
    for marker in (7, 8):
        for _ in range(12):
            buffer.add_frame(np.zeros(4, np.int16))
        buffer.add_flush(marker, None)
    buffer.add_frame(np.zeros(4, np.int16))
    buffer.finish()
    process.feed(b"".join(buffer.replay(1, live=True)))
    steps: list[list[EngineEvent]] = []
    while (lost_after is None or len(steps) < lost_after) and (events := process.step()) is not None:
        steps.append(events)
    arrived = steps if lost_after is None else steps[: len(steps) - unread]
    received = [event for events in arrived for event in buffer.receive(events)]
    if received[-1:] != [Finished()]:
        process = BatchingProcess(asynchronous)
        process.feed(b"".join(buffer.replay(1, live=True)))
        while (events := process.step()) is not None:
            received += buffer.receive(events)
    return received, len(steps)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_process_lost_in_any_step_of_an_extended_flush(asynchronous: bool) -> None:
    """Wherever the process is lost, and however many events of its last steps were under way."""
    expected, steps = play_until_lost(asynchronous, None)
    assert steps > 25 + 3 * (flush_frames(COUNTING_INFO) + 8) + FINAL_FRAMES, "the flushes were extended"
    markers = [event.marker for event in expected if isinstance(event, Flushed)]
    assert (markers, sum(isinstance(event, Word) for event in expected) > 30) == ([7, 8], True)
    for lost_after in range(1, steps + 1):
        for unread in range(min(lost_after, 4)):
            received, _ = play_until_lost(asynchronous, lost_after, unread)
            assert _without_partials(received) == _without_partials(expected), (lost_after, unread)


# --- Real processes -----------------------------------------------------------------------------------------------


def config(model: str, processes: int, **limits: int) -> Config:
    settings = ModelSettings(model=model, max_streams=8, engine_processes=processes, device="cpu", dtype="f32")
    return Config(model=settings, limits=LimitSettings(**limits))


@asynccontextmanager
async def running(model: str, processes: int = 2, **limits: int) -> AsyncIterator[RemoteEngine]:
    engine = make_engine(config(model, processes, **limits))
    assert isinstance(engine, RemoteEngine)

    async def check() -> None:
        while True:
            await asyncio.sleep(1)
            engine.check(limits.get("engine_seconds", 10))

    try:
        await engine.start()
        checks = asyncio.create_task(check())
        yield engine
        checks.cancel()
    finally:
        await engine.stop()


def processes_of(engine: RemoteEngine) -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "tympan.server.engine_process" in child.cmdline()]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def comparable(events: list[EngineEvent]) -> list[EngineEvent]:
    """Without what depends on timing, and with rounded probabilities, which depend on the number of rows."""
    kept = [event for event in events if not isinstance(event, Partial)]
    kept = [replace(event, confidence=0.0) if isinstance(event, Word) else event for event in kept]
    return [replace(event, pauses=()) if isinstance(event, Progress) else event for event in kept]


async def run_stream(
    engine: Engine, frames: list[Pcm], *, pace: float = 0.0, listener: Listener | None = None, flush_every: int = 40
) -> Listener:
    listener = listener or Listener()
    stream = engine.open(listener)
    for number, frame in enumerate(frames):
        stream.push(frame)
        if number % flush_every == flush_every // 2:
            stream.flush(number)
        if pace:
            await asyncio.sleep(pace)
    stream.finish()
    await listener.wait_for_end()
    return listener


@pytest.mark.parametrize("model", ["scripted", "random:tiny"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
async def test_process_is_lost(model: str, number: signal.Signals) -> None:
    """All streams continue, word for word as without the loss, and a new process takes the place of the lost one."""
    alone = create_engine(config(model, 0).model)
    await alone.start()
    frames = frames_of(clip("counting").at(alone.info.sample_rate), alone.info)[:100]
    expected = await run_stream(alone, frames)
    await alone.stop()
    async with running(model, engine_seconds=2) as engine:
        assert engine.capacity == 8
        listeners = [Listener() for _ in range(6)]
        calls = [asyncio.create_task(run_stream(engine, frames, pace=0.02, listener=each)) for each in listeners]
        await until(lambda: all(len(each.of(Progress)) >= 30 for each in listeners))
        victim, other = processes_of(engine)
        os.kill(victim.pid, number)
        await asyncio.gather(*calls)
        await until(lambda: engine.capacity == 8)
        assert other in processes_of(engine)
        assert engine.moved_streams == 3
        assert engine.active == 0
    for listener in listeners:
        assert comparable(listener.events) == comparable(expected.events)


async def test_process_is_lost_during_extended_flushes() -> None:
    """Every frame is flushed, and the made-up model always has more text: nearly all steps extend a flush."""
    alone = create_engine(config("random:tiny", 0).model)
    await alone.start()
    frames = frames_of(clip("counting").at(alone.info.sample_rate), alone.info)[:30]
    expected = await run_stream(alone, frames, flush_every=1)
    await alone.stop()
    async with running("random:tiny") as engine:
        listeners = [Listener() for _ in range(6)]
        calls = [asyncio.create_task(run_stream(engine, frames, listener=each, flush_every=1)) for each in listeners]
        await until(lambda: all(len(each.of(Flushed)) >= 5 for each in listeners))
        victim, _ = processes_of(engine)
        os.kill(victim.pid, signal.SIGKILL)
        await asyncio.gather(*calls)
        assert engine.moved_streams == 3
    for listener in listeners:
        assert comparable(listener.events) == comparable(expected.events)


async def test_streams_wait_for_the_only_process() -> None:
    async with running("scripted", 1) as engine:
        call = asyncio.create_task(run_stream(engine, [np.zeros(1920, np.int16)] * 100, pace=0.01))
        await asyncio.sleep(0.5)
        processes_of(engine)[0].kill()
        await until(lambda: not engine.ready)
        with pytest.raises(EngineError, match="not running"):
            engine.open(Listener())
        assert engine.active == 1
        listener = await call
        assert isinstance(listener.events[-1], Finished)
        assert len(listener.of(Progress)) == 100


async def test_waiting_stream_takes_the_slot_of_a_closed_one() -> None:
    """A process that is full gets the end of one stream before the beginning of the next."""
    async with running("scripted") as engine:
        listeners = [Listener() for _ in range(8)]
        streams = [engine.open(listener) for listener in listeners]
        lost, full = engine.processes
        lost.kill()
        await until(lambda: not lost.ready)
        closed = next(stream for stream in streams if stream.process is full)
        closed.close()
        for stream in streams:
            if stream is not closed:
                stream.finish()
        await until(lambda: engine.active == 0)
        assert [listener.events for listener in listeners if listener.events != [Finished()]] == [[]]


async def test_placement_is_even_and_capacity_is_the_sum() -> None:
    async with running("scripted") as engine:
        streams = [engine.open(Listener()) for _ in range(8)]
        assert sorted(process.active for process in engine.processes) == [4, 4]
        for stream in streams[::2]:
            stream.close()
        assert engine.active == 4
        assert [engine.open(Listener()) for _ in range(4)]


async def test_model_that_does_not_exist() -> None:
    engine = make_engine(config("/no/such/folder", 1))
    with pytest.raises(ModelError, match="/no/such/folder"):
        await engine.start()
    await engine.stop()


async def test_process_that_fails_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After several restarts in a row the streams fail, and the server is told to end."""
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (0.0,))
    async with running("scripted", 1) as engine:
        listener = Listener()
        engine.open(listener)
        monkeypatch.setattr(engine.processes[0], "_command", ("-c", "raise SystemExit(3)"))
        processes_of(engine)[0].kill()
        await listener.wait_for_end()
        assert isinstance(listener.events[-1], Failed)
        assert "failed again after 5 restarts" in engine.check(10)

"""Engine processes that serve several servers, as they serve several front processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from support.listener import Listener, frames_of
from support.speech import clip
from test_engine_processes import comparable, config, processes_of, run_stream, until

from tympan.engine.base import StepReport
from tympan.engine.registry import create_engine
from tympan.engine.remote.engine import RemoteEngine
from tympan.errors import CapacityError
from tympan.messages import Failed, Progress
from tympan.server.engine_process import engine_sockets, make_remote_engine

CAPACITY = 8
ORDER = (0, 0, 1, 1, 0, 1)  # servers of streams that are placed by turns on two processes: both have streams in each


@asynccontextmanager
async def shared(
    folder: Path, model: str, processes: int = 1
) -> AsyncIterator[tuple[RemoteEngine, list[RemoteEngine]]]:
    """Run the engine processes of a supervisor, and two servers that use them."""
    settings = config(model, processes)
    owner = make_remote_engine(settings, str(folder))
    servers = [RemoteEngine(sockets=engine_sockets(settings, str(folder))) for _ in range(2)]
    try:
        await asyncio.gather(*(engine.start() for engine in (owner, *servers)))
        yield owner, servers
    finally:
        for engine in (*servers, owner):
            await engine.stop()


async def test_capacity_is_not_multiplied(tmp_path: Path) -> None:
    async with shared(tmp_path, "scripted") as (owner, servers):
        first, second = servers
        streams = [first.open(Listener()) for _ in range(5)] + [second.open(Listener()) for _ in range(2)]
        await until(lambda: first.active == second.active == owner.active == 7)
        assert first.capacity == second.capacity == owner.capacity == CAPACITY
        streams.append(second.open(Listener()))
        await until(lambda: first.active == CAPACITY)
        for engine in servers:
            with pytest.raises(CapacityError, match="all 8 streams are taken"):
                engine.open(Listener())
        streams[0].close()
        await until(lambda: second.active == CAPACITY - 1)
        second.open(Listener())


async def test_streams_opened_at_the_same_time(tmp_path: Path) -> None:
    """The engine refuses what is too many, whatever the servers know of each other."""
    async with shared(tmp_path, "scripted") as (_, servers):
        listeners = [Listener() for _ in range(2 * CAPACITY)]
        for number, listener in enumerate(listeners):
            servers[number % 2].open(listener)
        await until(lambda: sum(bool(listener.of(Failed)) for listener in listeners) == CAPACITY)
        await until(lambda: servers[0].active == servers[1].active == CAPACITY)
        failures = [failed.error for listener in listeners for failed in listener.of(Failed)]
        assert all(isinstance(error, CapacityError) for error in failures)


async def test_placement_is_even_whatever_is_known_of_other_servers(tmp_path: Path) -> None:
    async with shared(tmp_path, "scripted", processes=2) as (_, (server, _other)):
        first, second = server.processes
        first.others = 2  # and those of the second process are not known yet
        server.open(Listener())
        assert (first.active, second.active) == (0, 1), "of processes with equal shares, the one with the most room"
        for _ in range(2):
            server.open(Listener())
        assert (first.active, second.active) == (1, 2)
        first.others = CAPACITY // 2 - first.active
        server.open(Listener())
        assert (first.active, second.active) == (1, 3), "a process without room takes none"


async def test_slots_of_a_lost_server_are_free(tmp_path: Path) -> None:
    async with shared(tmp_path, "scripted") as (_, (first, second)):
        for _ in range(CAPACITY):
            first.open(Listener())
        await until(lambda: second.active == CAPACITY)
        await first.stop()
        await until(lambda: second.active == 0)
        assert [second.open(Listener()) for _ in range(CAPACITY)]


async def test_a_step_is_reported_once(tmp_path: Path) -> None:
    """To the process that has started the engine: it counts the steps of all servers."""
    async with shared(tmp_path, "random:tiny") as (owner, servers):
        reports: dict[int, list[StepReport]] = {number: [] for number in range(3)}
        for number, engine in enumerate((owner, *servers)):
            engine.observe = reports[number].append
        frames = [np.zeros(owner.info.frame_samples, np.int16)] * 20
        await asyncio.gather(*(run_stream(engine, frames) for engine in servers))
        await until(lambda: sum(report.rows for report in reports[0]) >= 2 * len(frames))
        assert not reports[1]
        assert not reports[2]


@pytest.mark.parametrize("model", ["scripted", "random:tiny"])
async def test_engine_process_is_lost_under_two_servers(tmp_path: Path, model: str) -> None:
    """The streams of both continue, token for token, though they need the last slots of the other process."""
    alone = create_engine(config(model, 0).model)
    await alone.start()
    frames = frames_of(clip("counting").at(alone.info.sample_rate), alone.info)[:100]
    expected = await run_stream(alone, frames)
    await alone.stop()
    async with shared(tmp_path, model, processes=2) as (owner, servers):
        listeners = [Listener() for _ in ORDER]
        calls = []
        for number, (server, listener) in enumerate(zip(ORDER, listeners, strict=True)):
            engine = servers[server]
            calls.append(asyncio.create_task(run_stream(engine, frames, pace=0.02, listener=listener)))
            await until(lambda opened=number + 1: all(each.active == opened for each in servers))
        await until(lambda: all(len(each.of(Progress)) >= 30 for each in listeners))
        processes_of(owner)[0].kill()
        await asyncio.gather(*calls)
        await until(lambda: all(engine.capacity == CAPACITY for engine in servers))
        assert {engine.moved_streams for engine in servers} == {1, 2}
        assert all(engine.active == 0 for engine in servers)
    for listener in listeners:
        assert comparable(listener.events) == comparable(expected.events)


async def test_moved_stream_that_is_refused_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers move streams at the same time to the last slot of the process that is left; none fails."""
    refused = []

    class Observed(RemoteEngine):
        def on_refused(self, stream: int) -> None:
            refused.append(stream)
            super().on_refused(stream)

    monkeypatch.setattr("test_engine_sharing.RemoteEngine", Observed)
    async with shared(tmp_path, "scripted", processes=2) as (owner, servers):
        listeners = [Listener() for _ in ORDER]
        for number, (server, listener) in enumerate(zip(ORDER, listeners, strict=True)):
            servers[server].open(listener)
            await until(lambda opened=number + 1: all(each.active == opened for each in servers))
        streams = [stream for engine in servers for stream in engine._streams.values()]
        processes_of(owner)[0].kill()
        time.sleep(0.5)  # so that both learn of it in the same iteration of the event loop
        await until(lambda: sum(engine.moved_streams for engine in servers) == 3)
        for stream in streams:
            stream.push(np.zeros(1920, np.int16))
        await until(lambda: all(listener.of(Progress) for listener in listeners))
        assert not any(listener.of(Failed) for listener in listeners)
        assert refused, "both have taken the only slot that was free"

"""Hosts: what a snapshot contains, and what is created after it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import pytest

from tympan.config import Config, ModelSettings, load_config
from tympan.deploy.hosting import Host, ListeningHost
from tympan.engine import registry
from tympan.engine.scripted import ScriptedEngine


class RecordingEngine(ScriptedEngine):
    """Records the methods that are called."""

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        super().__init__(settings, most_streams)
        self.called: list[str] = []

    def load(self) -> None:
        self.called.append("load")

    async def start(self) -> None:
        self.called.append("start")
        await super().start()


@pytest.fixture(autouse=True)
def recording_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "create_engine", RecordingEngine)


def config(**settings: object) -> Config:
    return load_config(environment={}, overrides={"model": "scripted", "port": 0, **settings})


def called(host: Host) -> list[str]:
    assert isinstance(host.engine, RecordingEngine)
    return host.engine.called


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["load"]),
        ({"memory_snapshot": False}, []),  # no snapshot: loaded to the device at the start
        ({"gpu_snapshot": True}, []),  # the engine is started before the snapshot
    ],
)
def test_load_reads_weights_only_for_a_snapshot(settings: dict[str, object], expected: list[str]) -> None:
    host = Host(config(**settings))
    host.load()
    assert called(host) == expected


def threads() -> list[threading.Thread]:
    """Return all threads but the log's, which is kept."""
    return [thread for thread in threading.enumerate() if thread.name != "stderr"]


def test_load_starts_no_thread() -> None:
    before = threads()
    host = ListeningHost(config())
    host.load()
    assert threads() == before
    assert not host.engine.ready

    host.start()
    host.listen()
    assert called(host) == ["load", "start"]
    host.stop()
    assert threads() == before


async def test_app_does_not_start_the_engine_again() -> None:
    host = Host(config())
    host.load()
    await host.start_engine()
    app = host.app()
    async with app.router.lifespan_context(app):
        await asyncio.sleep(0)
        assert host.engine.ready
    assert called(host) == ["load", "start"]


@pytest.mark.parametrize(("capacity", "maximum", "warned"), [(2, 3, True), (3, 3, False), (None, 3, False)])
async def test_lower_capacity_is_logged(
    capacity: int | None, maximum: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(config(max_streams=capacity, container_max_streams=maximum))
    host.load()
    with caplog.at_level(logging.WARNING):
        await host.start_engine()
    await host.engine.stop()
    assert host.engine.capacity == min(capacity or maximum, maximum)
    assert ("set container_max_streams" in caplog.text) == warned


def test_process_ends_when_the_engine_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(RecordingEngine, "check", lambda self, longest_seconds: "it hangs", raising=True)
    host = ListeningHost(config())
    host.load()
    host.start()
    host.listen()
    assert ended.wait(10)
    host.stop()
    assert codes == [1]

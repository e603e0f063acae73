"""What may be in a snapshot, and what is made after it."""

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


class WatchedEngine(ScriptedEngine):
    """Notes what is asked of it."""

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        super().__init__(settings, most_streams)
        self.asked: list[str] = []

    def load(self) -> None:
        self.asked.append("load")

    async def start(self) -> None:
        self.asked.append("start")
        await super().start()


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "create_engine", WatchedEngine)


def config(**settings: object) -> Config:
    return load_config(environment={}, overrides={"model": "scripted", "port": 0, **settings})


def asked(host: Host) -> list[str]:
    assert isinstance(host.engine, WatchedEngine)
    return host.engine.asked


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["load"]),
        ({"memory_snapshot": False}, []),  # nobody keeps it: straight to the device, at the start
        ({"gpu_snapshot": True}, []),  # it is started before the snapshot
    ],
)
def test_weights_are_in_memory_only_for_a_snapshot(settings: dict[str, object], expected: list[str]) -> None:
    host = Host(config(**settings))
    host.load()
    assert asked(host) == expected


def test_before_the_snapshot_there_are_no_threads_and_no_loop() -> None:
    before = threading.enumerate()
    host = ListeningHost(config())
    host.load()
    assert threading.enumerate() == before
    assert not host.engine.ready

    host.start()
    host.listen()
    assert asked(host) == ["load", "start"]
    host.stop()
    assert threading.enumerate() == before


async def test_the_app_does_not_start_the_engine_again() -> None:
    host = Host(config())
    host.load()
    await host.start_engine()
    app = host.app()
    async with app.router.lifespan_context(app):
        await asyncio.sleep(0)
        assert host.engine.ready
    assert asked(host) == ["load", "start"]


@pytest.mark.parametrize(("carried", "told", "warned"), [(2, 3, True), (3, 3, False), (None, 3, False)])
async def test_carrying_less_than_was_told_is_said(
    carried: int | None, told: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(config(max_streams=carried, container_max_streams=told))
    host.load()
    with caplog.at_level(logging.WARNING):
        await host.start_engine()
    await host.engine.stop()
    assert host.engine.capacity == min(carried or told, told)
    assert ("set container_max_streams" in caplog.text) == warned


def test_a_container_whose_engine_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(WatchedEngine, "check", lambda self, longest_seconds: "it hangs", raising=True)
    host = ListeningHost(config())
    host.load()
    host.start()
    host.listen()
    assert ended.wait(10)
    host.stop()
    assert codes == [1]

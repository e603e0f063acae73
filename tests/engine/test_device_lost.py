"""An unusable device: the process ends, instead of starting engine threads forever."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Sequence

import httpx2 as httpx
import numpy as np
import pytest
import torch
from support.counting import COUNTING_INFO, CountingRunner
from support.listener import Listener
from support.server import LiveServer, PlainServer
from support.waiting import until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tympan.engine.batching import restarts
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai import engine as kyutai
from tympan.messages import Failed

FRAME = np.zeros(COUNTING_INFO.frame_samples, np.float32)
LOST = "the device is lost: only a new process can use it"


class Device:
    """A device on which all calls fail after the first error, as with CUDA after an illegal access."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.runners = 0
        self.freed: list[bool] = []

    def call(self) -> None:
        if self.error is not None:
            raise self.error

    def lost(self) -> bool:
        try:
            self.call()
        except RuntimeError:
            return True
        return False

    def runner(self) -> CountingRunner:
        self.runners += 1
        self.call()
        return OnDevice(self)


class OnDevice(CountingRunner):
    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.buffer = np.zeros(1)
        weakref.finalize(self.buffer, device.freed.append, True)

    def launch(self, rows: Sequence[Row]) -> StepResult:
        self.device.call()
        assert all(row.frame is None or len(row.frame) == COUNTING_INFO.frame_samples for row in rows)
        return super().launch(rows)


@pytest.fixture
def restarts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (0.01,))


@pytest.mark.usefixtures("restarts_at_once")
async def test_lost_device_causes_no_restart(caplog: pytest.LogCaptureFixture) -> None:
    device, listener = Device(), Listener()
    engine = BatchedEngine(device.runner, device_lost=device.lost)
    await engine.start()
    stream = engine.open(listener)
    device.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    stream.push(FRAME)
    with caplog.at_level(logging.CRITICAL):
        await until(lambda: listener.of(Failed))
    assert engine.check(60) == LOST
    assert not engine.ready
    await asyncio.sleep(0.2)
    assert device.runners == 1
    assert not device.freed, "CUDA would abort the process before the streams end"
    assert "illegal memory access" in caplog.text
    async with asyncio.timeout(5):
        await engine.stop()


@pytest.mark.usefixtures("restarts_at_once")
async def test_device_lost_during_restart() -> None:
    """The first thread ends with an unrelated error, and the device fails while the second one starts."""
    device, listener = Device(), Listener()

    def make() -> CountingRunner:
        if device.runners == 1:
            device.error = RuntimeError("CUDA error: unspecified launch failure")
        return device.runner()

    engine = BatchedEngine(make, device_lost=device.lost)
    await engine.start()
    stream = engine.open(listener)
    stream.push(FRAME[:7])  # a frame of the wrong length breaks the thread
    await until(lambda: engine.check(60))
    assert engine.check(60) == LOST
    assert len(listener.of(Failed)) == 1
    await asyncio.sleep(0.1)
    assert device.runners == 2
    await engine.stop()


@pytest.mark.usefixtures("restarts_at_once")
async def test_failed_restarts_are_fatal() -> None:
    """The device is not recognized as lost, but no restart succeeds."""
    device, listener = Device(), Listener()
    engine = BatchedEngine(device.runner)
    await engine.start()
    stream = engine.open(listener)
    device.error = RuntimeError("CUDA error: unknown error")
    stream.push(FRAME)
    await until(lambda: engine.check(60))
    assert engine.check(60) == "the engine failed again after 5 restarts in a row"
    await asyncio.sleep(0.1)
    assert device.runners == 1 + restarts.MAX_RESTARTS
    await engine.stop()


def test_restarts_in_a_row() -> None:
    """A good run is the end of a row; the delays grow within a row."""
    policy = restarts.RestartPolicy()
    assert [policy.next_delay(0) for _ in range(5)] == [1, 2, 5, 10, 30]
    assert policy.next_delay(restarts.GOOD_RUN_SECONDS + 1) == 1
    assert [policy.next_delay(1) for _ in range(5)] == [2, 5, 10, 30, None]


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.usefixtures("restarts_at_once")
async def test_out_of_memory_is_no_lost_device() -> None:
    device, listener = Device(), Listener()
    engine = BatchedEngine(device.runner, device_lost=lambda: False)  # synchronizing succeeds
    await engine.start()
    stream = engine.open(listener)
    device.error = torch.OutOfMemoryError("CUDA out of memory")
    stream.push(FRAME)
    await until(lambda: listener.of(Failed))
    device.error = None
    await until(lambda: engine.ready)
    assert engine.check(60) == ""
    await until(lambda: device.freed)
    await engine.stop()


@pytest.mark.parametrize("kind", [LiveServer, PlainServer], ids=["own server", "ASGI"])
def test_server_exits_on_lost_device(kind: type[LiveServer]) -> None:
    device = Device()
    engine = BatchedEngine(device.runner, device_lost=device.lost)
    with kind(engine=engine, engine_seconds=60) as server:
        with connect(server.url()) as client:
            device.error = RuntimeError("CUDA error: device-side assert triggered")
            client.send(bytes(3840))
            with pytest.raises(ConnectionClosed):
                while True:
                    client.recv(timeout=10)
            assert client.close_code == 1011
        if kind is LiveServer:
            server._thread.join(10)
            assert not server._thread.is_alive()
        else:
            for _ in range(100):  # the service checks the engine once a second
                ready = httpx.get(server.http("/ready"))
                if ready.json()["reason"] == LOST:
                    break
                time.sleep(0.1)
            assert (ready.status_code, ready.json()["reason"]) == (503, LOST)


@pytest.mark.parametrize(
    ("initialized", "error", "lost"),
    [(False, RuntimeError("CUDA error"), False), (True, None, False), (True, RuntimeError("CUDA error"), True)],
)
def test_device_lost(monkeypatch: pytest.MonkeyPatch, initialized: bool, error: Exception | None, lost: bool) -> None:
    """CUDA is not initialized by the check; if it is already, synchronizing shows whether the device works."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: _raise(error) if error else None)
    assert kyutai.device_lost() is lost

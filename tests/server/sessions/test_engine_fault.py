"""Faults of the recognizer: all clients receive an error, and the service recovers."""

from __future__ import annotations

import json

import httpx2 as httpx
import numpy as np
import pytest
from support.counting import COUNTING_INFO, CountingRunner, FreezingRunner
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.engine.batching import restarts
from tympan.engine.batching.engine import BatchedEngine
from tympan.protocols.native import NativeProtocol


def last_words(socket: ClientConnection) -> tuple[dict[str, str], int | None]:
    messages = []
    with pytest.raises(ConnectionClosed):
        while True:
            messages.append(json.loads(socket.recv(timeout=10)))
    return messages[-1], socket.close_code


def test_protocol_error_ends_one_stream(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer() as server, connect(server.url()) as other:
        with monkeypatch.context() as patched, connect(server.url()) as socket:
            patched.setattr(NativeProtocol, "send", lambda self, event, channel: 1 / 0)
            socket.send(bytes(3840 * 20))
            message, code = last_words(socket)
            assert (message["code"], code) == ("internal", 1011)
        other.send(bytes(3840 * 20))
        other.send("EOS")
        assert json.loads(list(other)[-1]) == {"status": "complete"}
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_broken_engine_restarts(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (1.0,))
    runners: list[CountingRunner] = []

    def load() -> CountingRunner:
        runners.append(CountingRunner())
        return runners[-1]

    with LiveServer(engine=BatchedEngine(load)) as server:
        with connect(server.url()) as idle, connect(server.url()) as busy:
            runners[0].broken = RuntimeError("CUDA error at /secret/path")
            busy.send(bytes(3840))
            for socket in (busy, idle):
                message, code = last_words(socket)
                assert code == 1011
                assert message == {"type": "error", "code": "internal", "message": "internal error"}
        ready = httpx.get(server.http("/ready"))
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert httpx.get(server.http("/health")).status_code == 200
        with pytest.raises(InvalidStatus) as refused:
            connect(server.url()).__enter__()
        assert refused.value.response.status_code == 503
        wait_until(lambda: httpx.get(server.http("/ready")).status_code == 200)
        with connect(server.url()) as socket:
            socket.send(bytes(3840 * 20))
            socket.send("EOS")
            assert json.loads(list(socket)[-1]) == {"status": "complete"}
    assert "CUDA error at /secret/path" in capfd.readouterr().err, "only the log contains the details"


def test_stalled_model_warns_and_loses_nothing() -> None:
    """The client receives a warning and its words, and the metrics count the stall."""
    talk = np.tile(np.repeat(np.array([0, 3000], "<i2"), [5 * 1920, 20 * 1920]), 6).tobytes()
    with LiveServer(engine=BatchedEngine(lambda: FreezingRunner(60), stall_seconds=4.0)) as server:
        with connect(server.url(events="word")) as socket:
            socket.send(talk)
            socket.send("EOS")
            messages = [json.loads(message) for message in socket]
        metrics = httpx.get(server.http("/metrics")).text
    (warning,) = [message for message in messages if message["type"] == "warning"]
    assert warning["code"] == "stalled"
    ends = [message["end"] for message in messages if message["type"] == "word"]
    assert max(np.diff(ends)) < 10 * COUNTING_INFO.frame_seconds, "no gap"
    assert "tympan_stalls_total 1.0" in metrics

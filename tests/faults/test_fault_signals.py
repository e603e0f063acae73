"""Every signal of an orchestrator has the expected effect, at any time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from support.faults import marks
from support.faults.process import SERVE, ServerProcess
from support.faults.server import FRONTS
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

SECOND = bytes(48_000)  # of silence
END_SECONDS = 10
NEVER_LOADED = ("-m", "support.faults.serve", "load")
PID_1 = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


@pytest.fixture(autouse=True, scope="module")
def default_hangup() -> Iterator[None]:
    """Servers inherit how SIGHUP is handled, and ignore it if these tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def namespaces() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*PID_1, "true"], check=False).returncode


def received(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return all messages until the end of the stream, and its close code."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(timeout=20)))
    except ConnectionClosed:
        assert socket.close_code is not None
        return messages, socket.close_code


def post(server: ServerProcess) -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}/v1/listen?encoding=linear16&sample_rate=24000"
    return httpx.post(url, content=SECOND, timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_draining_server_answers(tmp_path: Path, number: signal.Signals) -> None:
    """A stream with 3.75 s of work keeps the server open; the listener is closed when it has ended."""
    settings = {"model": "scripted:150", "grace_seconds": 30}
    with ServerProcess(tmp_path / "log", **settings) as server, connect(server.url()) as stream:
        stream.send(SECOND * 2)
        stream.recv(timeout=10)
        server.process.send_signal(number)
        server.until(lambda: server.get("/ready").status_code == 503)
        assert server.get("/ready").json() == {"ready": False, "reason": "draining"}
        for path in ("/v1/stream", "/v1/realtime", "/v1/listen", "/api/asr-streaming"):
            with pytest.raises(InvalidStatus) as refused:
                connect(server.url(path))
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["retry-after"]
            assert "the server is restarting" in (refused.value.response.body or b"").decode()
        assert post(server).status_code == 503
        assert server.get("/health").status_code == 200
        assert "tympan_sessions_total" in server.get("/metrics").text
        messages, code = received(stream)
        assert (messages[-1]["status"], code) == ("complete", 1012)
        assert len(messages) > 4
        assert server.process.wait(END_SECONDS) == -number
        with pytest.raises(httpx.ConnectError):
            server.get("/health")


def test_drain_delay(tmp_path: Path) -> None:
    """Until load balancers have noticed, clients are served although the server is not ready."""
    with ServerProcess(tmp_path / "log", model="scripted", drain_delay_seconds=2) as server:
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.get("/ready").status_code == 503)
        with connect(server.url()) as stream:
            stream.send(SECOND)
            assert post(server).status_code == 200
            messages, code = received(stream)
        assert (messages[-1]["status"], code) == ("complete", 1012)
        assert server.process.wait(END_SECONDS) == -signal.SIGTERM


@pytest.mark.parametrize("delay", [0, 300])
def test_second_signal_ends_drain(tmp_path: Path, delay: int) -> None:
    settings = {"model": "scripted:5000", "grace_seconds": 300, "drain_delay_seconds": delay}
    with ServerProcess(tmp_path / "log", **settings) as server, connect(server.url()) as stream:
        stream.send(SECOND * 2)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)  # as a wrapper sends it that forwards signals to its process group
        server.until(lambda: server.get("/ready").status_code == 503)
        time.sleep(1)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(END_SECONDS) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_while_model_loads(tmp_path: Path, number: signal.Signals) -> None:
    with ServerProcess(tmp_path / "log", NEVER_LOADED, wait_for="") as server:
        server.until(lambda: answers(server))
        server.process.send_signal(number)
        assert server.process.wait(END_SECONDS) == -number
    assert f"{number.name}: the process ends before it has served" in server.log


@pytest.mark.skipif(not namespaces(), reason="needs user namespaces")
@pytest.mark.parametrize(("command", "settings"), [(NEVER_LOADED, {}), (SERVE, {"model": "scripted"})])
def test_process_1(tmp_path: Path, command: tuple[str, ...], settings: dict[str, object]) -> None:
    """The kernel withholds default actions from process 1, whose exit code is therefore that of a shell."""
    with ServerProcess(tmp_path / "log", command, PID_1, wait_for="", **settings) as server:
        server.until(lambda: answers(server))
        process, *_ = server.children()
        process.send_signal(signal.SIGTERM)
        assert server.process.wait(END_SECONDS) == 128 + signal.SIGTERM


def test_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """As under `nohup`."""
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with ServerProcess(tmp_path / "log", popen=ignore, model="scripted") as server:
        server.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert server.get("/ready").status_code == 200


def test_signal_to_all_processes(tmp_path: Path) -> None:
    """Ctrl-C signals the process group, and systemd each process: the recognizer outlives it, and no word is lost."""
    own_group = {"start_new_session": True}
    with ServerProcess(tmp_path / "log", popen=own_group, model="embedded", max_streams=2) as server:
        with connect(server.url("/v1/stream?events=word&sample_rate=16000")) as stream:
            chunks = list(marks.chunks(0, 5, 16_000))
            for chunk in chunks:
                stream.send(chunk)
            os.killpg(server.process.pid, signal.SIGTERM)
            for worker in server.children():
                worker.send_signal(signal.SIGTERM)
            messages, code = received(stream)
        assert (messages[-1]["status"], code) == ("complete", 1012)
        assert len([message for message in messages if "text" in message]) == 5
        assert server.process.wait(END_SECONDS) == -signal.SIGTERM


def test_killed_server_leaves_no_process(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "log", model="embedded", max_streams=4) as server:
        workers = server.children()
        assert workers
        workers[0].send_signal(signal.SIGSTOP)  # it does not read the end of its pipe
        server.process.kill()
        _, left = psutil.wait_procs(workers, END_SECONDS)
        for worker in left:
            worker.kill()
        assert not left


def test_broken_engine_ends_the_process(tmp_path: Path) -> None:
    """The device is lost although it is not recognized as lost: after five restarts only a new process can help."""
    with ServerProcess(tmp_path / "log", ("-m", "support.faults.serve", "broken")) as server:
        server.process.send_signal(signal.SIGUSR1)
        with connect(server.url()) as stream:
            stream.send(SECOND)
            if FRONTS > 1:  # the next engine process has another runner
                stream.send("EOS")
                assert received(stream)[1] == 1000
                assert "the device is broken" in server.log
                return
            assert received(stream)[1] == 1011
        assert server.process.wait(END_SECONDS) == 1
    assert server.log.count("the device is broken") >= 6
    assert "the engine failed again after 5 restarts in a row: restart the server" in server.log


def answers(server: ServerProcess) -> bool:
    try:
        return server.get("/health").status_code == 200
    except httpx.TransportError:
        return False

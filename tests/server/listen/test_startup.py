"""Readiness during start-up, restarts of the engine and shutdown."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest
import trustme
from support.counting import CountingRunner
from support.ports import free_port
from support.server import LiveServer
from support.waiting import wait_until
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tympan.config import ServerSettings
from tympan.engine.batching import restarts
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.errors import ConfigError
from tympan.server import engine_process
from tympan.server.listen.listener import listen
from tympan.server.listen.startup import StartupServer


class SlowStart:
    """An engine whose calibration waits for an event."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.stages = StartupTimer()
        self.runner = CountingRunner()
        self.engine = BatchedEngine(self.make_runner, timer=self.stages)

    def make_runner(self) -> CountingRunner:
        self.runner = CountingRunner()
        with self.stages.timed("calibration"):
            assert self.done.wait(30)
        return self.runner


async def test_reports_startup_stage() -> None:
    slow = SlowStart()
    settings = ServerSettings(port=0)
    with listen(settings) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        async with StartupServer(listener, settings, slow.engine), httpx.AsyncClient() as client:
            start = asyncio.create_task(slow.engine.start())
            await asyncio.sleep(0.1)
            ready = await client.get(f"http://{host}/ready?from=a-probe")
            assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
            assert ready.json() == {"ready": False, "reason": "the engine is starting: calibration"}
            health = await client.get(f"http://{host}/health")
            assert (health.status_code, health.json()["status"]) == (200, "starting")
            with pytest.raises(InvalidStatus) as refused:
                await connect_async(f"ws://{host}/v1/stream")
            assert refused.value.response.status_code == 503
            assert json.loads(refused.value.response.body or b"")["error"]["code"] == "restarting"
            posted = await client.post(f"http://{host}/v1/audio/transcriptions", content=b"a few bytes")
            assert posted.status_code == 503
            slow.done.set()
            await start
        await slow.engine.stop()
        assert listener.fileno() >= 0, "the socket is left to the server"


async def test_page_shows_the_progress() -> None:
    """A browser gets a page that reloads itself; other clients of the same path get JSON."""
    slow = SlowStart()
    settings = ServerSettings(port=0)
    with listen(settings) as listener:
        host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with StartupServer(listener, settings, slow.engine), httpx.AsyncClient() as client:
            with slow.stages.timed("files"):
                slow.stages.report("downloading <model>: 34 % of 1.98 GB")
                page = await client.get(host, headers={"Accept": "text/html,*/*"})
                assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
                assert "the engine is starting: downloading &lt;model&gt;: 34 % of 1.98 GB" in page.text
                assert 'http-equiv="refresh"' in page.text
                ready = await client.get(f"{host}/ready")
                assert ready.json()["reason"] == "the engine is starting: downloading <model>: 34 % of 1.98 GB"
            assert (await client.get(host)).json()["error"]["message"].startswith("the engine is starting;")


async def test_paths_while_starting() -> None:
    """Probes behind a proxy's prefix, with other slashes or with HEAD get the same answers as later."""
    settings = ServerSettings(port=0, root_path="/stt")
    with listen(settings) as listener:
        host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with StartupServer(listener, settings, SlowStart().engine), httpx.AsyncClient() as client:
            for path in ("/health", "/stt/health", "//health/"):
                assert (await client.get(host + path)).json()["status"] == "starting"
                head = await client.head(host + path)
                assert (head.status_code, head.content) == (200, b"")
            assert (await client.head(f"{host}/stt/ready")).status_code == 503


async def test_logs_startup_stage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A start has no time limit, so the log says what it does."""
    monkeypatch.setattr(engine_process, "PROGRESS_SECONDS", 0.05)
    slow = SlowStart()
    with caplog.at_level(logging.INFO, "tympan"):
        start = asyncio.create_task(engine_process.start_engine(slow.engine))
        while "the engine is starting: calibration (0 s so far)" not in caplog.text:
            await asyncio.sleep(0.01)
        slow.done.set()
        await start
    await slow.engine.stop()


async def test_survives_clients_without_http() -> None:
    settings = ServerSettings(port=0)
    with listen(settings) as listener:
        async with StartupServer(listener, settings, SlowStart().engine), httpx.AsyncClient() as client:
            port = listener.getsockname()[1]
            for words in (b"", b"GET", b"\x00" * 100_000, b"\r\n\r\n"):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(words)
                writer.close()
            _, idle = await asyncio.open_connection("127.0.0.1", port)
            assert (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 503
            idle.close()


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = ServerSettings(port=0, tls_certificate=str(tmp_path / "both.pem"))
    with listen(settings) as listener:
        async with StartupServer(listener, settings, SlowStart().engine), httpx.AsyncClient(verify=context) as client:
            answer = await client.get(f"https://127.0.0.1:{listener.getsockname()[1]}/ready")
            assert answer.status_code == 503


def test_start_of_the_process() -> None:
    port = free_port()
    command = [sys.executable, "-m", "tympan", "serve", "--model", "embedded", "--max-streams", "1"]
    answers: list[tuple[int, str]] = []
    with subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not answers or answers[-1][0] != 200:
            assert time.monotonic() < deadline
            assert process.poll() is None
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/ready")
            except httpx.ConnectError:
                assert not answers, "the port stays open"
                time.sleep(0.01)
            else:
                answers.append((answer.status_code, answer.json()["reason"]))
        assert answers[0] == (503, "the engine is starting")
        assert answers[-1] == (200, "")
        with connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
            stream.send("EOS")
            assert json.loads(list(stream)[-1]) == {"status": "complete"}
        process.terminate()
        process.wait(15)


def test_not_ready_while_engine_restarts(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(restarts, "RESTART_SECONDS", (0.5,))
    slow = SlowStart()
    slow.done.set()
    with LiveServer(engine=slow.engine) as server:

        def reason() -> str:
            return str(httpx.get(server.http("/ready")).json()["reason"])

        assert reason() == ""
        slow.done.clear()
        slow.runner.broken = RuntimeError("a fault")
        with connect(server.url()) as stream:
            stream.send(bytes(3840))
            wait_until(lambda: reason() == "the engine is not running")
        wait_until(lambda: reason() == "the engine is starting: calibration")
        slow.done.set()
        wait_until(lambda: reason() == "")
    assert "a fault" in capfd.readouterr().err


def test_not_ready_while_draining() -> None:
    with LiveServer(step_ms=100) as server, httpx.Client() as client:
        assert client.get(server.http("/ready")).status_code == 200
        with connect(server.url()) as stream:
            stream.send(bytes(3840 * 25))
            stream.recv(timeout=10)
            server.terminate()
            wait_until(lambda: server.service.connections.draining)
            answer = client.get(server.http("/ready"))
            assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
            client.close()


def test_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="cannot listen on"):
        listen(ServerSettings(port=other.getsockname()[1]))

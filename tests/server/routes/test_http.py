"""HTTP routes, API keys and shutdown."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2 as httpx
import pytest
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tympan.engine.scripted import scripted_words


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(max_streams=3) as server:
        yield server


def test_health(server: LiveServer) -> None:
    health = httpx.get(server.http("/health")).json()
    assert health["status"] == "ok"
    assert (health["model"], health["engine"], health["device"]) == ("scripted", "scripted", "none")
    assert (health["capacity"], health["active"]) == (3, 0)


def test_models(server: LiveServer) -> None:
    listing = httpx.get(server.http("/v1/models")).json()
    assert listing["object"] == "list"
    assert [model["id"] for model in listing["data"]] == ["scripted"]
    assert listing["data"][0]["turns_from"] == "script"


def test_metrics(server: LiveServer) -> None:
    with connect(server.url()) as socket:
        assert "tympan_active_streams 1.0" in httpx.get(server.http("/metrics")).text
        socket.send(bytes(3840 * 25))
        socket.send("EOS")
        list(socket)
    wait_until(lambda: 'tympan_sessions_total{code="1000"' in httpx.get(server.http("/metrics")).text)
    text = httpx.get(server.http("/metrics")).text
    assert "tympan_capacity_streams 3.0" in text
    assert "tympan_words_total 5.0" in text
    assert "tympan_audio_seconds_total 2.0" in text
    assert "tympan_lag_seconds_count 1.0" in text


def test_page_has_content_security_policy(server: LiveServer) -> None:
    page = httpx.get(server.http("/"))
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_ready(server: LiveServer) -> None:
    assert httpx.get(server.http("/ready")).json() == {"ready": True, "reason": ""}


def test_api_keys() -> None:
    with LiveServer(api_keys=["secret"], host="127.0.0.1") as server:
        for url, headers in [
            (server.url(), {}),
            (server.url(token="wrong"), {}),
            (server.url(), {"Authorization": "Bearer wrong"}),
        ]:
            with pytest.raises(InvalidStatus) as refused:
                connect(url, additional_headers=headers)
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body or b"")["error"]["code"] == "unauthorized"
        for url, headers in [(server.url(token="secret"), {}), (server.url(), {"Authorization": "Bearer secret"})]:
            with connect(url, additional_headers=headers) as socket:
                socket.send("EOS")
                assert json.loads(socket.recv(timeout=10)) == {"text": "", "final": True}
        assert httpx.get(server.http("/health")).status_code == 200
        assert httpx.get(server.http("/v1/models")).status_code == 401
        assert httpx.get(server.http("/v1/models"), headers={"Authorization": "Bearer secret"}).status_code == 200


def test_shutdown_completes_streams() -> None:
    with LiveServer() as server, ExitStack() as stack:
        sockets = [stack.enter_context(connect(server.url())) for _ in range(5)]
        for socket in sockets:
            socket.send(bytes(3840 * 25))
        for socket in sockets:
            assert json.loads(socket.recv(timeout=10))["text"] == "word0"
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        for socket in sockets:
            messages = []
            with pytest.raises(ConnectionClosed):
                while True:
                    messages.append(json.loads(socket.recv(timeout=10)))
            assert socket.close_code == 1012
            texts = "word0" + "".join(message.get("text", "") for message in messages)
            assert texts == " ".join(word.text for word in scripted_words(25))
            assert messages[-2]["final"] is True
            assert messages[-1] == {"status": "complete"}
        stopper.join(20)
        assert not stopper.is_alive()


def test_sigterm_ends_process_and_workers() -> None:
    command = [sys.executable, "-m", "tympan", "serve", "--model", "embedded", "--port", "0", "--max-streams", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        port = int(line.rpartition(":")[2])
        assert "embedded" in line
        with connect(f"ws://127.0.0.1:{port}/v1/stream") as socket:
            socket.send(bytes(48_000))
            process.terminate()
            with pytest.raises(ConnectionClosed):
                while True:
                    socket.recv(timeout=10)
            assert socket.close_code == 1012
        process.wait(15)
        assert "Traceback" not in process.stderr.read()


def test_port_in_use(server: LiveServer) -> None:
    command = [sys.executable, "-m", "tympan", "serve", "--model", "scripted", "--port", str(server.port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert f"{server.port}" in result.stderr

"""`tympan serve` as the images run it, without an image: it serves, and stops while it loads and under load.

`make test-deploy` runs this file in the development environment, because Kyutai's models need PyTorch.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from support.contained import USER, ContainedServer, can_contain, left_behind
from support.speech import clip, word_error_rate
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not can_contain(), reason="needs Linux and user namespaces"),
]

NO_HOME = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"))
ENDED = 128 + signal.SIGTERM  # process 1 cannot be ended by a signal, so it exits with the code of a shell
PATH = "/v1/stream?sample_rate=24000&events=word"


def received(socket: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """Return all messages until the end of the stream, and its close code."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(timeout=60)))
    except ConnectionClosed:
        return messages, socket.close_code


def words(messages: list[dict[str, Any]]) -> str:
    return " ".join(message["text"] for message in messages if message["type"] == "word")


def reason(server: ContainedServer) -> str:
    """Return why the server is not ready; empty if it does not answer yet."""
    try:
        return str(server.get("/ready").json().get("reason", ""))
    except httpx.TransportError:
        return ""


@pytest.mark.parametrize("environment", [{}, NO_HOME], ids=["as in the image", "no home"])
def test_speech_and_stop_under_load(tmp_path: Path, environment: dict[str, str | None]) -> None:
    """An open stream receives the words of the audio that the server has, and 1012; no process is left."""
    spoken = clip("counting")
    with ContainedServer(tmp_path, environment=environment, max_streams=1) as server:
        assert server.get("/ready").status_code == 200
        status = server.status()
        assert status["NSpid"].split()[-1] == "1"
        assert Path(f"/proc/{server.process_1.pid}/uid_map").read_text().split()[0] == str(USER)
        assert int(status["CapEff"], 16) == 0
        with connect(server.url(PATH)) as socket:
            socket.send(spoken.pcm())
            socket.send(json.dumps({"type": "flush", "id": 1}))
            messages = [json.loads(socket.recv(timeout=60))]
            while messages[-1]["type"] != "flushed":  # all of the audio has arrived
                messages.append(json.loads(socket.recv(timeout=60)))
            socket.send(spoken.pcm())
            children = server.children()
            assert server.stop() == ENDED
            rest, code = received(socket)
        assert code == 1012
        assert word_error_rate(spoken.text, words(messages)) <= 0.2
        assert rest[-1]["type"] == "complete"
        assert not left_behind(children)
    assert "SIGTERM: the server stops" in server.log


def test_stop_during_a_download(tmp_path: Path) -> None:
    """The hub sends a part of the weights, and then nothing."""
    pytest.importorskip("torch")
    from support.hub_client import MODEL, WEIGHTS, hub_with_tiny_model

    with hub_with_tiny_model(tmp_path / "published") as hub:
        hub.hold_at = 200_000
        variables = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": None}
        settings = {"model": MODEL, "device": "cpu", "dtype": "f32", "wait_for": ""}
        folder = tmp_path / "container"
        folder.mkdir()
        with ContainedServer(folder, "Dockerfile.cuda", variables, **settings) as server:
            server.until(lambda: f"downloading {WEIGHTS}" in reason(server))
            children = server.children()
            assert server.stop() == ENDED
            assert not left_behind(children)
    assert "SIGTERM: the process ends before it has served" in server.log


def test_stop_while_weights_are_loaded(tmp_path: Path) -> None:
    """The weights of a billion parameters take seconds, in native code."""
    pytest.importorskip("torch")
    settings = {"model": "random:1b", "device": "cpu", "dtype": "int8", "wait_for": ""}
    with ContainedServer(tmp_path, "Dockerfile.cuda", **settings) as server:
        server.until(lambda: "weights" in reason(server))
        children = server.children()
        assert server.stop() == ENDED
        assert not left_behind(children)
    assert "SIGTERM: the process ends before it has served" in server.log

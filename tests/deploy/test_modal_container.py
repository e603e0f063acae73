"""The real container entrypoint, started with what the real `modal deploy` sent, with snapshot and signals."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modal")

from modal_container import CLASS, SERVER, Container, container
from support.modal_worker import Worker
from support.speech import clip, word_error_rate
from test_modal_deploy import deployed
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]
PATH = "/v1/stream"
URL = f"ws://127.0.0.1:8000{PATH}"
SECOND = bytes(2 * 24_000)


@contextmanager
def started(folder: Path, shape: str, **settings: str) -> Iterator[Container]:
    deployment = deployed(shape=shape, secret_name="", container_memory_mib="2048", **settings)
    with Worker() as worker, container(folder, deployment, SERVER if shape == "server" else CLASS, worker) as running:
        yield running


async def everything(client: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    messages = []
    try:
        while True:
            messages.append(json.loads(await client.recv()))
    except ConnectionClosed as closed:
        return messages, closed.rcvd.code if closed.rcvd else None


def said(messages: list[dict[str, Any]]) -> str:
    return "".join(message.get("text", "") for message in messages)


def assert_last_words(messages: list[dict[str, Any]], code: int | None) -> None:
    assert code == 1012
    assert any(message.get("final") for message in messages)
    assert messages[-1] == {"status": "complete"}


async def test_server_transcribes_speech(tmp_path: Path) -> None:
    with started(tmp_path, "server", model="embedded", container_cpu="1") as running:
        async with connect(URL) as client:
            await client.send(clip("counting").pcm())
            await client.send("EOS")
            messages, code = await everything(client)
        assert code == 1000
        assert word_error_rate(clip("counting").text, said(messages)) <= 0.1
        assert await asyncio.to_thread(running.stop) == 0
        assert [name for name, _ in running.worker.calls if "Checkpoint" in name] == ["ContainerCheckpoint"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_server_drains_streams_at_a_signal(tmp_path: Path, number: int) -> None:
    with started(tmp_path, "server", model="scripted", container_max_streams="12") as running:
        clients = [await connect(URL) for _ in range(12)]
        for client in clients:
            await client.send(SECOND)
        await asyncio.gather(*(client.recv() for client in clients))  # the audio has arrived
        stopping = asyncio.create_task(asyncio.to_thread(running.stop, number))
        for messages, code in await asyncio.gather(*(everything(client) for client in clients)):
            assert_last_words(messages, code)
        assert await stopping == 0


async def test_class_drains_streams_at_an_interrupt(tmp_path: Path) -> None:
    with started(
        tmp_path, "class", model="scripted", container_max_streams="12", container_target_streams="12"
    ) as running:
        clients = [await running.worker.connect(PATH) for _ in range(12)]
        for client in clients:
            await client.send(SECOND)
        await asyncio.gather(*(client.next() for client in clients))  # the audio has arrived
        stopping = asyncio.create_task(asyncio.to_thread(running.stop, signal.SIGINT))
        for messages, code in await asyncio.gather(*(client.everything() for client in clients)):
            assert_last_words(messages, code)
        assert await stopping == 0
        assert "Traceback" not in running.log


async def test_lower_capacity_is_enforced_and_logged(tmp_path: Path) -> None:
    with started(tmp_path, "server", model="scripted", container_max_streams="3", max_streams="2") as running:
        kept = [await connect(URL) for _ in range(2)]
        with pytest.raises(Exception, match="503"):
            await connect(URL)
        for client in kept:
            await client.close()
        assert await asyncio.to_thread(running.stop) == 0
        assert "carries 2 streams, but the platform sends it 3: set container_max_streams to 2" in running.log


async def test_class_transcribes_speech(tmp_path: Path) -> None:
    with started(tmp_path, "class", model="embedded", container_cpu="1") as running:
        client = await running.worker.connect(PATH)
        await client.send(clip("counting").pcm())
        await client.send("EOS")
        messages, code = await client.everything()
        assert code == 1000
        assert word_error_rate(clip("counting").text, said(messages)) <= 0.1
        running.worker.scale_down()
        assert await asyncio.to_thread(running.wait) == 0


async def test_class_hands_streams_over_before_the_timeout(tmp_path: Path) -> None:
    settings = {"container_max_streams": "12", "container_target_streams": "12", "handover_seconds": "1"}
    with started(tmp_path, "class", model="scripted", **settings) as running:
        clients = [await running.worker.connect(PATH) for _ in range(12)]
        for client in clients:
            await client.send(SECOND)
        for messages, code in await asyncio.gather(*(client.everything() for client in clients)):
            assert_last_words(messages, code)
        running.worker.scale_down()
        assert await asyncio.to_thread(running.wait) == 0

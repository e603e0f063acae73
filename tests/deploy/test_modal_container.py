"""The real container entrypoint, started from what the real `modal deploy` sent; snapshot and signals included."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modal")

from modal_proto import api_pb2
from support.modal_plane import ControlPlane
from support.speech import clip, word_error_rate
from test_modal_deploy import ROOT, deployed, functions
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(120)]
URL = "ws://127.0.0.1:8000/v1/stream"
SECONDS_TO_START = 40


def variables_of(plane: ControlPlane) -> dict[str, str]:
    """What the platform would put into the container's environment."""
    return next(dict(request.env_dict) for request in plane.requests("SecretGetOrCreate") if request.env_dict)


def arguments_of(plane: ControlPlane) -> Any:
    """What the platform would tell the container: the deployed function, its ids, a snapshot to be made."""
    function = api_pb2.Function()
    function.CopyFrom(functions(plane)["Tympan"])
    function.is_checkpointing_function = True
    (published,) = plane.requests("AppPublish")
    layout = api_pb2.AppLayout(function_ids=published.function_ids)
    for id in {*published.function_ids.values(), *(dep.object_id for dep in function.object_dependencies)}:
        entry = layout.objects.add(object_id=id)
        if id.startswith("fu-"):
            entry.function_handle_metadata.function_name = "Tympan"
    return api_pb2.ContainerArguments(
        task_id="ta-1",
        function_id=published.function_ids["Tympan"],
        app_id="ap-1",
        function_def=function,
        checkpoint_id="ch-1",
        app_layout=layout,
    )


@dataclass
class Container:
    process: subprocess.Popen[bytes]
    plane: ControlPlane

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


@contextmanager
def container(folder: Path, **settings: str) -> Iterator[Container]:
    """A running one, past its snapshot, that lets clients in."""
    deployment = deployed(secret_name="", container_memory_mib="2048", **settings)
    arguments, restored = folder / "arguments", folder / "restored.json"
    arguments.write_bytes(arguments_of(deployment).SerializeToString())
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "TYMPAN_"))}
    with ControlPlane() as plane:
        environment = {
            **ours,
            **plane.environment(),
            **variables_of(deployment),
            "PYTHONPATH": str(ROOT / "src"),
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": "ta-1",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
            "MODAL_ENABLE_SNAP_RESTORE": "1",
            "MODAL_RESTORE_STATE_PATH": str(restored),
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "modal._container_entrypoint"],
                env=environment,
                cwd=folder,
                stderr=log,
                stdout=log,
            )
        try:
            wait(lambda: bool(plane.requests("ContainerCheckpoint")), process, folder)
            assert not listening(), "before the snapshot there is no socket"
            restored.write_text(json.dumps({"task_id": "ta-2"}))
            wait(listening, process, folder)
            yield Container(process, plane)
        finally:
            process.kill()
            process.wait()


def listening() -> bool:
    try:
        socket.create_connection(("127.0.0.1", 8000), timeout=1).close()
    except OSError:
        return False
    return True


def wait(condition: Any, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not condition():
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.05)


async def everything(client: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    messages = []
    try:
        while True:
            messages.append(json.loads(await client.recv()))
    except ConnectionClosed as closed:
        return messages, closed.rcvd.code if closed.rcvd else None


async def test_real_speech_through_the_deployed_service(tmp_path: Path) -> None:
    with container(tmp_path, model="embedded", container_cpu="1") as running:
        async with connect(URL) as client:
            await client.send(clip("counting").pcm())
            await client.send("EOS")
            messages, code = await everything(client)
        assert code == 1000
        assert word_error_rate(clip("counting").text, "".join(m.get("text", "") for m in messages)) < 0.25
        assert await asyncio.to_thread(running.stop) == 0
        assert [name for name, _ in running.plane.calls if "Checkpoint" in name] == ["ContainerCheckpoint"]


@pytest.mark.parametrize("streams", [12])
async def test_sigterm_gives_every_open_stream_its_last_words_and_1012(tmp_path: Path, streams: int) -> None:
    with container(tmp_path, model="scripted", maximum_streams=str(streams)) as running:
        clients = [await connect(URL) for _ in range(streams)]
        for client in clients:
            await client.send(bytes(2 * 24_000))
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(asyncio.to_thread(running.stop))
        for messages, code in await asyncio.gather(*(everything(client) for client in clients)):
            assert code == 1012
            assert any(message.get("final") for message in messages)
            assert messages[-1] == {"status": "complete"}
        assert await stopping == 0

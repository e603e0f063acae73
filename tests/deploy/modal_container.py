"""A real container of a deployment: Modal's own entrypoint in a process on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_proto import api_pb2
from support.modal_plane import ControlPlane
from support.modal_worker import Worker
from test_modal_deploy import ROOT, functions

WAIT_SECONDS = 120  # for a start or an end on a busy machine
SERVER, CLASS, FILE = "Tympan", "TympanClass.*", "transcribe"


def variables_of(plane: ControlPlane) -> dict[str, str]:
    """Return the variables that the platform would set in the container."""
    return next(dict(request.env_dict) for request in plane.requests("SecretGetOrCreate") if request.env_dict)


def arguments_of(plane: ControlPlane, name: str) -> Any:
    """Return the arguments that the platform would pass to the container of a function."""
    function = api_pb2.Function()
    function.CopyFrom(functions(plane)[name])
    function.is_checkpointing_function = function.checkpointing_enabled
    (published,) = plane.requests("AppPublish")
    layout = api_pb2.AppLayout(function_ids=published.function_ids, class_ids=published.class_ids)
    ids = {*published.function_ids.values(), *published.class_ids.values()}
    for id in ids | {dep.object_id for dep in function.object_dependencies}:
        entry = layout.objects.add(object_id=id)
        if id.startswith("fu-"):
            entry.function_handle_metadata.function_name = name
            for method in function.method_definitions:
                entry.function_handle_metadata.method_handle_metadata[method].function_name = method
        elif id.startswith("cs-"):
            entry.class_handle_metadata.SetInParent()
    return api_pb2.ContainerArguments(
        task_id="ta-1",
        function_id=published.function_ids[name],
        app_id="ap-1",
        function_def=function,
        checkpoint_id="ch-1" if function.checkpointing_enabled else "",
        app_layout=layout,
    )


@dataclass
class Container:
    process: subprocess.Popen[bytes]
    worker: Worker
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(WAIT_SECONDS)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.process.poll() is None, self.log[-3000:]
            assert time.monotonic() < deadline, self.log[-3000:]
            time.sleep(0.05)


@contextmanager
def container(folder: Path, deployment: ControlPlane, name: str, worker: Worker) -> Iterator[Container]:
    """Run a container, past its snapshot if it has one, that accepts clients."""
    arguments, restored = folder / "arguments", folder / "restored.json"
    sent = arguments_of(deployment, name)
    arguments.write_bytes(sent.SerializeToString())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "TYMPAN_"))}
    environment = {
        **inherited,
        **worker.environment(),
        **variables_of(deployment),
        "PYTHONPATH": str(ROOT / "src"),
        "MODAL_IS_REMOTE": "1",
        "MODAL_TASK_ID": "ta-1",
        "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
        "MODAL_ENABLE_SNAP_RESTORE": "1",
        "MODAL_RESTORE_STATE_PATH": str(restored),
    }
    command = [sys.executable, "-m", "modal._container_entrypoint"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stderr=log, stdout=log)
    running = Container(process, worker, folder)
    try:
        if sent.function_def.is_checkpointing_function:
            running.until(lambda: bool(worker.requests("ContainerCheckpoint")))
            assert not listening(), "a socket before the snapshot"
            assert not children(process.pid), "a recognizer process before the snapshot"
            restored.write_text(json.dumps({"task_id": "ta-2"}))
        if name == SERVER:
            running.until(listening)
            running.until(lambda: catches(process.pid, signal.SIGTERM))
        else:
            running.until(lambda: bool(worker.requests("FunctionGetInputs")))
        yield running
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def catches(pid: int, number: int) -> bool:
    """Return whether the process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def listening() -> bool:
    try:
        socket.create_connection(("127.0.0.1", 8000), timeout=1).close()
    except OSError:
        return False
    return True

"""`tympan`, in this process or as one of its own, whose hub is on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from random_checkpoint import write_checkpoint

from support.loopback_hub import Content, LoopbackHub
from support.terminal import Terminal

MODEL = "kyutai/test"
WEIGHTS = "model.safetensors"
WAIT_SECONDS = 40.0


@contextmanager
def hub_with_tiny_model(folder: Path) -> Iterator[LoopbackHub]:
    """Serve `random:tiny`, which is written to `folder`."""
    folder.mkdir()
    write_checkpoint("random:tiny", folder)
    with LoopbackHub({file.name: Content.of(file.read_bytes()) for file in folder.iterdir()}) as server:
        yield server


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Redirect huggingface_hub in this process, which reads its variables when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def environment(hub: LoopbackHub, folder: Path, **changes: str) -> dict[str, str]:
    """Return the environment of a process whose cache is in `folder`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**variables, **hub.environment(folder), **changes}


def start(
    hub: LoopbackHub, folder: Path, *arguments: str, log: Path | None = None, terminal: Terminal | None = None
) -> subprocess.Popen[str]:
    """Start `tympan`; standard error is a pipe, a file, or a terminal."""
    command = [sys.executable, "-m", "tympan", *arguments]
    variables = environment(hub, folder, TERM="xterm", COLUMNS="140")
    with log.open("wb") if log else nullcontext(terminal.fd if terminal else subprocess.PIPE) as errors:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until the condition is true, while the process runs."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)

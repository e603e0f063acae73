"""What a process that downloads shows: on a terminal, in a log without one, in `/ready` and in a browser."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from support.hub_client import MODEL, WEIGHTS, environment, hub_with_tiny_model, start, wait_until
from support.loopback_hub import LoopbackHub
from support.ports import free_port

OPTIONS = ("--model", MODEL, "--device", "cpu", "--dtype", "f32")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with hub_with_tiny_model(tmp_path / "published") as server:
        yield server


def on_terminal(
    hub: LoopbackHub, tmp_path: Path, *arguments: str, on_data: Callable[[bytes], None] = lambda shown: None
) -> str:
    """Run `tympan` with standard error on a terminal, and return what it shows."""
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "tympan", *arguments]
    variables = environment(hub, tmp_path / "hub", TERM="xterm", COLUMNS="140")
    shown = b""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=variables) as process:
        os.close(terminal)
        try:
            while data := os.read(master, 4096):
                shown += data
                on_data(shown)
        except OSError:  # Linux reports the end of a terminal as an error
            pass
        process.wait(50)
    os.close(master)
    assert process.returncode == 0, shown
    return shown.decode()


def test_bar_on_a_terminal(hub: LoopbackHub, tmp_path: Path) -> None:
    text = on_terminal(hub, tmp_path, "pull", MODEL)
    assert f"verifying {WEIGHTS}" in text
    assert "━" in text, "a bar is drawn"
    assert f"tympan: downloading {WEIGHTS}" not in text, "no lines beside the bar"


def test_transcribe_shows_the_download_on_a_terminal(hub: LoopbackHub, tmp_path: Path, spoken_file: Path) -> None:
    hub.hold_at = 200_000
    expected = f"the engine is starting: downloading {WEIGHTS}: "

    def release(shown: bytes) -> None:
        if expected.encode() in shown:
            hub.release.set()

    assert expected in on_terminal(hub, tmp_path, "transcribe", *OPTIONS, str(spoken_file), on_data=release)


def test_server_shows_the_download(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hold_at = 200_000
    port = free_port()
    log = tmp_path / "log"
    process = start(hub, tmp_path / "hub", "serve", *OPTIONS, "--max-streams", "1", "--port", str(port), log=log)
    try:
        page = f"http://127.0.0.1:{port}"
        wait_until(hub.held.is_set, process)
        expected = f"the engine is starting: downloading {WEIGHTS}: "
        wait_until(lambda: expected in httpx.get(f"{page}/ready").json()["reason"], process)
        reason = httpx.get(f"{page}/ready").json()["reason"]
        assert reason.endswith(" % of 0.34 MB")
        assert reason in httpx.get(page, headers={"Accept": "text/html"}).text
        hub.release.set()
        wait_until(lambda: "serves model" in log.read_text(), process)
        lines = log.read_text()
        assert f"downloading {WEIGHTS} (0.34 MB, 9 % present) to {tmp_path}/hub/hub/models--kyutai--test" in lines
        assert f"downloaded {WEIGHTS} in " in lines
        assert "its checksum is correct" in lines
        assert httpx.get(f"{page}/ready").status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=20)

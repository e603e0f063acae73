"""Processes that download from a loopback hub: killed, two at a time, on a terminal and without, on a full disk."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from random_checkpoint import write_checkpoint
from support.loopback_hub import Content, LoopbackHub
from support.ports import free_port

MODEL = "kyutai/test"
WEIGHTS = "model.safetensors"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or bool(subprocess.run([*NAMESPACES, "true"], check=False).returncode),
    reason="needs user namespaces",
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    folder = tmp_path / "published"
    folder.mkdir()
    write_checkpoint("random:tiny", folder)
    with LoopbackHub({file.name: Content.of(file.read_bytes()) for file in folder.iterdir()}) as server:
        yield server


def environment(hub: LoopbackHub, tmp_path: Path, **changes: str) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**variables, **hub.environment(tmp_path / "hub"), **changes}


def start(hub: LoopbackHub, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tympan", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment(hub, tmp_path), **pipes)  # type: ignore[call-overload,no-any-return]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.fault
def test_killed_download_continues(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hold_at = 200_000
    with start(hub, tmp_path, "pull", MODEL) as process:
        wait_until(hub.held.is_set, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    sent = hub.sent[WEIGHTS]
    hub.hold_at = None
    hub.release.set()
    with start(hub, tmp_path, "pull", MODEL) as process:
        output, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors
    assert f"{MODEL}: 5 files" in output
    again = [start for name, start in hub.ranges if name == WEIGHTS][-1]
    assert 100_000 < again <= sent, "the second process continues where the first one was killed"
    (weights,) = (tmp_path / "hub").rglob(f"snapshots/*/{WEIGHTS}")
    assert weights.read_bytes() == hub.files[WEIGHTS].start


@pytest.mark.fault
def test_two_processes_download_once(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hold_at = 200_000
    with start(hub, tmp_path, "pull", MODEL) as first:
        wait_until(hub.held.is_set, first)
        with start(hub, tmp_path, "pull", MODEL) as second:
            assert second.stderr is not None
            assert select.select([second.stderr], [], [], 40)[0], "the second process says that it waits"
            line = second.stderr.readline()
            hub.release.set()
            assert line == f"tympan: waiting for another process that downloads {WEIGHTS}\n"
            assert second.communicate(timeout=50)[0].startswith(f"{MODEL}: 5 files")
        first.communicate(timeout=50)
    assert first.returncode == second.returncode == 0
    assert hub.sent[WEIGHTS] == hub.files[WEIGHTS].size


def test_bar_on_a_terminal(hub: LoopbackHub, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "tympan", "pull", MODEL]
    variables = environment(hub, tmp_path, TERM="xterm", COLUMNS="140")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=variables) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # Linux reports the end of a terminal as an error
            pass
        process.wait(50)
    os.close(master)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "downloading config.json" not in text
    assert f"verifying {WEIGHTS}" in text
    assert " kB" in text
    assert "━" in text, "a bar is drawn"
    assert f"tympan: downloading {WEIGHTS}" not in text, "no lines beside the bar"


def test_server_shows_the_download(hub: LoopbackHub, tmp_path: Path) -> None:
    """The log without a terminal, `/ready` and the page in a browser."""
    hub.hold_at = 200_000
    port = free_port()
    options = ["--device", "cpu", "--dtype", "f32", "--max-streams", "1", "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tympan", "serve", "--model", MODEL, *options]
        process = subprocess.Popen(command, stderr=output, env=environment(hub, tmp_path))
    try:
        wait_until(hub.held.is_set, process)  # type: ignore[arg-type]
        page = f"http://127.0.0.1:{port}"
        expected = f"the engine is starting: downloading {WEIGHTS}: "
        wait_until(lambda: expected in httpx.get(f"{page}/ready").json()["reason"], process)  # type: ignore[arg-type]
        reason = httpx.get(f"{page}/ready").json()["reason"]
        assert reason.endswith(" % of 0.34 MB")
        assert reason in httpx.get(page, headers={"Accept": "text/html"}).text
        hub.release.set()
        wait_until(lambda: "serves model" in log.read_text(), process)  # type: ignore[arg-type]
        lines = log.read_text()
        assert f"continuing at 9 % with {WEIGHTS} (0.34 MB) into {tmp_path}/hub/hub/models--kyutai--test" in lines
        assert f"downloaded {WEIGHTS} in " in lines
        assert "its checksum is correct" in lines
        assert httpx.get(f"{page}/ready").status_code == 200
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.fault
@needs_namespaces
def test_small_disk(hub: LoopbackHub, tmp_path: Path) -> None:
    """A file system of 300 KiB: the download is refused before it begins."""
    folder = tmp_path / "hub"
    folder.mkdir()
    script = f'mount -t tmpfs -o size=300k none "{folder}" && exec "{sys.executable}" -m tympan pull {MODEL}'
    command = [*NAMESPACES, "sh", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(hub, tmp_path), timeout=50, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tympan: not enough disk space in {folder}/hub/models--kyutai--test: the download needs ")
    assert "free some space, or set HF_HOME to a folder on another disk" in line
    assert hub.sent[WEIGHTS] <= 1 << 15


def test_transcribe_shows_the_download_on_a_terminal(hub: LoopbackHub, tmp_path: Path, spoken_file: Path) -> None:
    hub.hold_at = 200_000
    master, terminal = pty.openpty()
    options = ["--device", "cpu", "--dtype", "f32"]
    command = [sys.executable, "-m", "tympan", "transcribe", "--model", MODEL, *options, str(spoken_file)]
    variables = environment(hub, tmp_path, TERM="xterm", COLUMNS="140")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=variables) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
                if f"downloading {WEIGHTS}: ".encode() in shown:
                    hub.release.set()
        except OSError:  # the end of the terminal, as above
            pass
        process.wait(50)
    os.close(master)
    assert process.returncode == 0, shown
    assert f"the engine is starting: downloading {WEIGHTS}: " in shown.decode()

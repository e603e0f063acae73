"""Downloads whose process is killed, whose file another process downloads, or whose disk is full."""

from __future__ import annotations

import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_client import MODEL, WEIGHTS, environment, hub_with_tiny_model, start, wait_until
from support.loopback_hub import LoopbackHub
from support.terminal import Terminal

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or bool(subprocess.run([*NAMESPACES, "true"], check=False).returncode),
    reason="needs user namespaces",
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with hub_with_tiny_model(tmp_path / "published") as server:
        yield server


def bytes_of_unfinished(folder: Path) -> int:
    """Return the size of the largest file that is being downloaded."""
    return max((path.stat().st_size for path in folder.rglob("*.incomplete")), default=0)


@pytest.mark.parametrize("on_terminal", [False, True])
def test_killed_download_continues(on_terminal: bool, hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hold_at = 200_000
    with start(hub, tmp_path / "hub", "pull", MODEL) as process:
        wait_until(hub.held.is_set, process)
        wait_until(lambda: bytes_of_unfinished(tmp_path) > 100_000, process)  # what was sent may be on its way
        process.send_signal(signal.SIGKILL)
        process.communicate()
    sent = hub.sent[WEIGHTS]
    hub.hold_at = None
    hub.release.set()
    with Terminal() as terminal:
        options = {"terminal": terminal} if on_terminal else {}
        with start(hub, tmp_path / "hub", "pull", MODEL, **options) as process:
            output, errors = process.communicate(timeout=50)
    lines = terminal.lines if on_terminal else errors.splitlines()
    assert process.returncode == 0, lines
    assert f"{MODEL}: 5 files" in output
    shown = "verifying model.safetensors ━" if on_terminal else "tympan: verifying model.safetensors"
    assert any(line.startswith(shown) for line in lines)
    if not on_terminal:
        first = next(line for line in lines if line.startswith(f"tympan: downloading {WEIGHTS}: "))
        assert int(first.split()[3]) >= 30, "the progress begins where the first process was killed"
    again = [start for name, start in hub.ranges if name == WEIGHTS][-1]
    assert 100_000 < again <= sent, "the second process continues where the first one was killed"
    (weights,) = (tmp_path / "hub").rglob(f"snapshots/*/{WEIGHTS}")
    assert weights.read_bytes() == hub.files[WEIGHTS].start


def test_two_processes_download_once(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.hold_at = 200_000
    with start(hub, tmp_path / "hub", "pull", MODEL) as first:
        wait_until(hub.held.is_set, first)
        with start(hub, tmp_path / "hub", "pull", MODEL) as second:
            assert second.stderr is not None
            assert select.select([second.stderr], [], [], 40)[0], "the second process says that it waits"
            line = second.stderr.readline()
            hub.release.set()
            assert line == f"tympan: waiting for another process that downloads {WEIGHTS}\n"
            assert second.communicate(timeout=50)[0].startswith(f"{MODEL}: 5 files")
        first.communicate(timeout=50)
    assert first.returncode == second.returncode == 0
    assert hub.sent[WEIGHTS] == hub.files[WEIGHTS].size


@needs_namespaces
def test_small_disk(hub: LoopbackHub, tmp_path: Path) -> None:
    """On a file system of 300 KiB the download is refused before it begins."""
    folder = tmp_path / "hub"
    folder.mkdir()
    script = f'mount -t tmpfs -o size=300k none "{folder}" && exec "{sys.executable}" -m tympan pull {MODEL}'
    command = [*NAMESPACES, "sh", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(hub, folder), timeout=50, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tympan: not enough disk space in {folder}/hub/models--kyutai--test: the download needs ")
    assert "free some space, or set HF_HOME to a folder on another disk" in line
    assert hub.sent[WEIGHTS] <= 1 << 15

"""What containers do to a process: no home folder, an arbitrary user, no network, few open files, foreign variables."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from support.faults.process import SERVE, ServerProcess
from support.faults.server import ENVIRONMENT
from support.ports import free_port

from tympan.server.fronts.folder import PREFIX

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

USER = 54321
OTHER_USER = ("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}")
NO_HOME = {"HOME": None, "XDG_CACHE_HOME": None, "HF_HOME": None, "HF_HUB_CACHE": None}
REPORT_SECONDS = 15
"""Without the probe of the hub it takes 27 s."""

needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or bool(subprocess.run([*OTHER_USER, "true"], check=False).returncode),
    reason="needs user namespaces",
)


def serve(model: str, environment: Mapping[str, str | None], prefix: tuple[str, ...] = ()) -> str:
    """Return the log of a server that does not start, without the progress that it logs every ten seconds."""
    variables = {name: value for name, value in {**ENVIRONMENT, **environment}.items() if value is not None}
    command = [*prefix, sys.executable, *SERVE, "--model", model, "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, env=variables, check=False)
    assert result.returncode == 2, result.stderr
    return "\n".join(line for line in result.stderr.splitlines() if not line.endswith(" s so far)"))


def unreachable_hub() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_unreachable_hub(tmp_path: Path) -> None:
    hub = unreachable_hub()
    began = time.monotonic()
    (line,) = serve("some/model", {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)}).splitlines()
    assert time.monotonic() - began < REPORT_SECONDS
    assert f"the hub {hub} cannot be reached (" in line
    assert "set HF_ENDPOINT to a mirror" in line
    assert "to work offline" in line


@needs_namespaces
def test_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user id has no entry in the password database. Caches of all packages are in one temporary folder."""
    environment = {**NO_HOME, "TMPDIR": str(tmp_path), "HF_ENDPOINT": unreachable_hub()}
    monkeypatch.chdir(tmp_path)
    notice, problem = serve("some/model", environment, OTHER_USER).splitlines()
    assert notice == f"tympan: there is no home folder; caches are in {tmp_path}/tympan-{USER}, set HOME to keep them"
    assert "cannot be reached" in problem
    settings = {"model": "embedded", "max_streams": 1}
    with ServerProcess(tmp_path / "log", prefix=OTHER_USER, environment=environment, **settings) as server:
        assert server.get("/ready").status_code == 200
    files = {file.name for file in tmp_path.iterdir()}
    assert {name for name in files if not name.startswith(PREFIX)} == {"log", f"tympan-{USER}"}


@needs_namespaces
def test_home_folder_prepared_by_another_user(tmp_path: Path) -> None:
    """The name of the folder is known, so that another user may have made it, or a link, to plant files."""
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    (tmp_path / f"tympan-{USER}").symlink_to(target)
    variables = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    variables = {name: value for name, value in variables.items() if name not in NO_HOME}
    command = [*OTHER_USER, sys.executable, "-c", "from tympan.config import provide_home; print(provide_home())"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=variables, check=True)
    assert done.stdout.startswith(f"{tmp_path}/tympan-{USER}-")


def test_no_folder_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only container without a home folder starts; caches are not written."""
    from tympan import config

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/proc/1")
    monkeypatch.setenv("LOGNAME", "someone")
    assert config.provide_home() == Path("/")


def test_file_limit_is_raised(tmp_path: Path) -> None:
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))}
    with ServerProcess(tmp_path / "log", popen=limit, model="scripted") as server:
        assert psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)


def test_variables_of_kubernetes(tmp_path: Path) -> None:
    variables = {"TYMPAN_PORT": "tcp://10.0.0.1:8000", "TYMPAN_SERVICE_HOST": "10.0.0.1"}
    settings = {"model": "scripted", "log_format": "json"}
    with ServerProcess(tmp_path / "log", environment=variables, **settings) as server:
        lines = [json.loads(line)["message"] for line in server.log.splitlines()]
    (line,) = [line for line in lines if "Kubernetes" in line]
    assert line.endswith(": TYMPAN_PORT, TYMPAN_SERVICE_HOST")

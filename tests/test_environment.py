"""`make serve` before the server starts: the version of Python, and environments that are broken."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.ports import free_port
from support.server import LiveServer

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "environment.py"
OLD = """#!{python}
import runpy, sys
sys.version_info = (3, 9, 2, "final", 0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment."""
    folder = tmp_path_factory.mktemp("pristine") / ".venv"
    done = run(sys.executable, SCRIPT, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"making the virtual environment {folder} with Python 3.")
    return folder


def test_without_python() -> None:
    done = run("make", "serve", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert "Tympan needs Python 3.11 or later, and there is no /nowhere/python3: install it, or name" in done.stderr


def test_old_python(tmp_path: Path) -> None:
    python = tmp_path / "python3.9"
    python.write_text(OLD.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    done = run("make", "serve", f"PYTHON={python}")
    assert done.returncode != 0
    assert "Tympan needs Python 3.11 or later, and this is 3.9.2 (" in done.stderr
    assert "make serve PYTHON=python3.12" in done.stderr


def test_environment_that_works_is_kept(pristine: Path) -> None:
    (pristine / "serve.done").touch()
    done = run(sys.executable, SCRIPT, pristine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (pristine / "serve.done").exists()


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    """A copy of an environment, which is broken, since its scripts belong to the original, until they are repaired."""
    folder = tmp_path / ".venv"
    shutil.copytree(pristine, folder, symlinks=True)
    return folder


def repair_scripts(folder: Path, original: Path) -> None:
    pip = folder / "bin" / "pip"
    pip.write_text(pip.read_text().replace(str(original), str(folder)))


def test_broken_environments_are_recognized(copy: Path, pristine: Path) -> None:
    works = runpy.run_path(str(SCRIPT))["works"]
    assert works(str(pristine))
    assert not works(str(copy)), "moved"
    repair_scripts(copy, pristine)
    assert works(str(copy))
    python = copy / "bin" / "python"
    python.rename(copy / "bin" / "saved")
    assert not works(str(copy)), "interrupted before Python was there"
    python.symlink_to("/nowhere/python3")
    assert not works(str(copy)), "its Python has been removed"
    python.unlink()
    (copy / "bin" / "saved").rename(python)
    shutil.rmtree(copy / "lib")
    assert not works(str(copy)), "interrupted before pip was there"


def test_half_made_environment_is_made_again(copy: Path) -> None:
    shutil.rmtree(copy / "lib")
    (copy / "serve.done").touch()
    done = run(sys.executable, SCRIPT, copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is incomplete or broken: making it again" in done.stdout
    assert not (copy / "serve.done").exists(), "the packages are installed again"
    assert run(copy / "bin" / "pip", "--version").stdout.startswith("pip ")


def test_other_folder_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    done = run(sys.executable, SCRIPT, tmp_path)
    assert done.returncode == 1
    assert "not empty and not a virtual environment" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


def test_first_commands_work_as_printed() -> None:
    with LiveServer(model="embedded", max_streams=1) as server:
        done = run(sys.executable, ROOT / ".ci" / "first_commands.py", os.getpid(), "--port", server.port)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Open http://127.0.0.1:{server.port} and speak." in done.stdout
        commands = re.findall(r"^  \.venv/bin/(.+)$", done.stdout, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            shown = run(Path(sys.executable).parent / command.split()[0], *command.split()[1:])
            said = f"{command}: {shown.stdout}{shown.stderr}"
            assert (shown.returncode, "fox" in shown.stdout.lower()) == (0, True), said


def test_first_commands_end_with_the_server() -> None:
    script = f"{sys.executable} .ci/first_commands.py $$ --port {free_port()} & exit 0"
    assert run("sh", "-c", script).stdout == ""  # returns once no process has the pipe


def test_install_says_what_it_does(pristine: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "parcel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("parcel.py", "")
        archive.writestr("parcel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        archive.writestr("parcel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("parcel-1.0.dist-info/RECORD", "")
    done = run(sys.executable, SCRIPT, pristine, "--", "--no-index", wheel)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"installing into {pristine}: {wheel} and what it needs")
    assert "  installing the packages (1)" in lines
    assert lines[-1].startswith("installed in ")
    failed = run(sys.executable, SCRIPT, pristine, "--", "--no-index", tmp_path / "nothing-1.0-py3-none-any.whl")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("pip has failed")

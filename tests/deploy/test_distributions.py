"""The wheel and the source distribution: what they contain, and that the wheel works in a clean environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def version() -> str:
    return str(project()["version"])


def tracked(folder: Path, relative_to: Path) -> set[str]:
    """Return the paths of the files of a folder that are in version control."""
    result = subprocess.run(["git", "ls-files", folder], cwd=relative_to, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    code = {name for name in names if ".dist-info/" not in name}
    assert code == tracked(SOURCES / "tympan", SOURCES) | {"tympan/deploy/constraints.txt"}
    assert {"tympan/py.typed", "tympan/server/static/index.html"} <= code
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert wheel.name == f"tympan-{version()}-py3-none-any.whl"
    for extra in project()["optional-dependencies"]:
        assert f"Provides-Extra: {extra}\n" in metadata


def test_wheel_without_extras_is_the_client(wheel: Path, tmp_path: Path) -> None:
    """The base install has the command line and the Python client, and says what a server needs."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([python, "-m", "pip", "install", *options, wheel], check=True, capture_output=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [tmp_path / "venv" / "bin" / "tympan", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run("--version").stdout.split()[-1] == version()
    assert run("transcribe", "--help").returncode == 0
    refused = run("serve", "--model", "scripted")
    assert refused.returncode == 2
    assert "server]" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_source_distribution(tmp_path: Path) -> None:
    code = "import hatchling.build, sys; print(hatchling.build.build_sdist(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with tarfile.open(tmp_path / result.stdout.split()[-1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "src/tympan/py.typed"} <= names
    linked = {f"clients/js/{path.name}" for path in (ROOT / "clients" / "js").iterdir()}  # a link in the repository
    assert linked <= names
    assert names - tracked(ROOT, ROOT) - linked == {"PKG-INFO"}

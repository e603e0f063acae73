"""The wheel in a clean environment for each extra and Python version: what the extra is for is run there.

`make test-deploy` runs a sample, `make test-wheels` everything; Python versions that this machine lacks are skipped.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
import wave
from pathlib import Path

import pytest
from support.ports import free_port
from support.speech import clip, word_error_rate

pytest.importorskip("uv")

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv", "--quiet")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FOR_USERS = ("base", *sorted(set(EXTRAS) - {"clients", "dev"}))
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
THIS_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SAMPLE = ("embedded",)
WAIT_SECONDS = 120

# Options of `tympan serve` with an extra; a client of the same environment transcribes a clip with this server.
SERVES = {
    "server": ("--model", "scripted"),
    "embedded": ("--model", "embedded"),
    "recording": ("--model", "scripted", "--record-folder", "."),
    "wyoming": ("--model", "scripted", "--wyoming-port", "0"),
}
RECOGNIZERS = ("embedded",)
# Arguments of Python that use an extra without a server.
RUNS = {
    "base": ("-c", "import tympan; tympan.connect, tympan.connect_sync"),
    "cpu": ("-m", "tympan", "transcribe", "--model", "random:tiny", "--device", "cpu", "clip.wav"),
    "mic": ("-c", "from importlib.util import find_spec; assert find_spec('sounddevice')"),
    "modal": (
        "-c",
        "import os; os.environ.update(TYMPAN_MODEL='embedded', TYMPAN_SECRET_NAME=''); import tympan.deploy.modal_app",
    ),
    "otel": ("-c", "import opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http"),
    "plot": ("-c", "import tympan.deploy.fleet_plot, matplotlib"),
    "ray": ("-c", "import tympan.deploy.ray_app"),
    "torch": ("-c", "import tympan.engine.kyutai.engine, sentencepiece"),
}


def cases() -> list[object]:
    """Return all pairs of a version and an extra; the sample is of this version, the others are marked `wheels`."""
    found = []
    for version in VERSIONS:
        for extra in FOR_USERS:
            is_sample = version == THIS_VERSION and extra in SAMPLE
            mark = pytest.mark.deploy if is_sample else pytest.mark.wheels
            found.append(pytest.param(version, extra, marks=[mark, pytest.mark.timeout(1800)]))
    return found


def interpreter(version: str) -> Path:
    """Return a Python of a version that works, from PATH or pyenv; skip the test if there is none."""
    found = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for path in filter(None, found):
        command = [path, "-c", "import sys; print(sys.executable)"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:  # pyenv has a file for every version, whether it is selected or not
            return Path(result.stdout.strip())
    pytest.skip(f"there is no Python {version}")


def run(*command: str | Path, folder: Path) -> str:
    """Return what a command prints; fail if it fails."""
    result = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(*UV, "build", "--wheel", "--out-dir", folder, ROOT, folder=folder)
    (found,) = folder.glob("*.whl")
    return found


def install(wheel: Path, version: str, extra: str, folder: Path) -> Path:
    """Create an environment with the wheel and an extra, and return its Python."""
    extras = {"base": "", "server": "[server]"}.get(extra, f"[{extra},server]")
    python = folder / "environment" / "bin" / "python"
    run(*UV, "venv", "--python", interpreter(version), folder / "environment", folder=folder)
    target = ("--python", python, "--constraint", ROOT / "constraints.txt")
    run(*UV, "pip", "install", *target, f"tympan{extras} @ {wheel.as_uri()}", folder=folder)
    run(*UV, "pip", "check", "--python", python, folder=folder)
    return python


def write_clip(folder: Path) -> None:
    with wave.open(str(folder / "clip.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(clip("counting").pcm())


def is_ready(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
    except OSError:  # an error of HTTP is one
        return False
    return True


def served_text(python: Path, options: tuple[str, ...], folder: Path) -> str:
    """Return what the command line prints of the clip, with a server of the same environment."""
    port = free_port()
    command = [python, "-m", "tympan", "serve", "--port", str(port), *options]
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_ready(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        url = f"ws://127.0.0.1:{port}"
        text = run(python, "-m", "tympan", "transcribe", "clip.wav", "--url", url, folder=folder)
        server.send_signal(signal.SIGTERM)
        assert server.wait(WAIT_SECONDS) == -signal.SIGTERM
        assert "Traceback" not in log.read_text()
        return text
    finally:
        server.kill()
        server.wait()


@pytest.mark.deploy
def test_every_extra_is_run() -> None:
    assert set(FOR_USERS) <= set(SERVES) | set(RUNS)


@pytest.mark.deploy
@pytest.mark.timeout(600)
def test_constraints_fit_all_extras(tmp_path: Path) -> None:
    """The pins agree with each other also where PyTorch is the build with CUDA, which pins its Triton."""
    options = ["--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_28"]
    extras = [option for extra in FOR_USERS[1:] for option in ("--extra", extra)]
    constraints = ("--constraint", ROOT / "constraints.txt")
    text = run(*UV, "pip", "compile", *options, *extras, *constraints, ROOT / "pyproject.toml", folder=tmp_path)
    pinned = set((ROOT / "constraints.txt").read_text().splitlines())
    found = {line for line in text.splitlines() if "==" in line}
    assert {line.partition("==")[0] for line in found} >= {"torch", "triton", "uvicorn"}
    assert {line for line in found if line.startswith(("torch==", "triton=="))} <= pinned


@pytest.mark.parametrize(("version", "extra"), cases())
def test_extra(wheel: Path, version: str, extra: str, tmp_path: Path) -> None:
    python = install(wheel, version, extra, tmp_path)
    write_clip(tmp_path)
    (tmp_path / "CONSENT").write_text("The clip is synthetic speech.\n")  # a server that records needs it
    assert run(python, "-m", "tympan", "--version", folder=tmp_path).split()[-1] in wheel.name
    if extra in RUNS:
        run(python, *RUNS[extra], folder=tmp_path)
    if extra in SERVES:
        text = served_text(python, SERVES[extra], tmp_path)
        assert text.strip()
        if extra in RECOGNIZERS:
            assert word_error_rate(clip("counting").text, text) <= 0.25
    if extra == "recording":
        assert list(tmp_path.glob("*.flac"))

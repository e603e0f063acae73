"""Settings of a deployment: resolved, and refused where they are wrong, before anything is sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.pinned import PINNED

from tympan.config import Config, as_environment, load_config
from tympan.deploy import packages
from tympan.deploy.deployment import Deployment, resolve_deployment, resolve_ray_deployment
from tympan.deploy.packages import constraints_file, requirements
from tympan.errors import ConfigError


def config(**settings: object) -> Config:
    return load_config(environment={}, overrides={"model": PINNED, **settings})


def streams(deployment: Deployment) -> tuple[int | None, int | None]:
    deploy = deployment.config.deploy
    return deploy.container_max_streams, deploy.container_target_streams


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gpus": ["NOSUCH"]}, "Modal has no GPU 'NOSUCH'"),
        ({"gpus": ["L40S:2"]}, "expected one per container"),
        ({"gpus": []}, "but this model needs one"),
        ({"gpus": ["B300"]}, "set container_max_streams"),
        ({"model": "kyutai/stt-1b-en_fr-candle"}, "pin the model to a commit"),
        ({"model": "kyutai/stt-1b-en_fr-candle@main"}, "pin the model to a commit"),
        ({"routing_region": "mars"}, "us-east, us-west"),
        ({"min_containers": 10}, "more than max_containers"),
        ({"gpu_snapshot": True, "memory_snapshot": False}, "needs memory_snapshot"),
        ({"gpu_snapshot": True, "model": "embedded"}, "and a GPU"),
        ({"container_target_streams": 20, "container_max_streams": 10}, "is above container_max_streams"),
    ],
)
def test_modal_settings_are_checked(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve_deployment(config(**settings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout_seconds", 86401),
        ("timeout_seconds", 0),
        ("startup_timeout_seconds", 0),
        ("exit_grace_seconds", 3601),
        ("scaledown_window", 1),
        ("scaledown_window", 3601),
        ("shape", "lambda"),
    ],
)
def test_settings_have_ranges(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        config(**{name: value})


def test_container_resolves_the_same_settings() -> None:
    here = resolve_deployment(config(gpus=["l40s", "H100"], shape="class", memory_snapshot=False, idle_seconds=5))
    environment = {name: value for name, value in here.environment.items() if name.startswith("TYMPAN_")}
    there = resolve_deployment(load_config(environment=environment), check=False)
    assert there == here
    assert here.config.limits.handover_seconds == 3600 - 30


def test_host_of_the_platform_is_allowed() -> None:
    assert resolve_deployment(config()).config.server.allowed_hosts == ("*",)
    named = config(allowed_hosts=["asr.example"])
    assert resolve_deployment(named).config.server.allowed_hosts == ("asr.example",)
    assert resolve_ray_deployment(config()).config.server.allowed_hosts == ()


def test_environment_has_no_keys() -> None:
    overrides = {"api_keys": ["k"], "token_secret": "t", "metrics_keys": ["m"]}
    secrets = load_config(environment={}, overrides=overrides)
    assert as_environment(secrets) == {}


def test_streams_of_a_container_are_filled_in() -> None:
    resolved = resolve_deployment(config())
    assert resolved.config.model.max_streams is None, "its own calibration may find less"
    assert streams(resolved) == (179, 143)
    assert streams(resolve_deployment(config(gpus=["H100", "L40S"]))) == (179, 143), "those of the smaller GPU"
    embedded = resolve_deployment(config(model="embedded"))
    assert (embedded.gpus, embedded.weights, streams(embedded)) == ((), None, (4, 3))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gpus": ["B300"]}, "set container_max_streams"),
        ({"gpus": []}, "set gpus or container_max_streams"),
        ({"model": "kyutai/stt-1b-en_fr-candle"}, "pin the model to a commit"),
        ({"min_containers": 11}, "more than max_containers"),
        ({"container_target_streams": 20, "container_max_streams": 10}, "is above container_max_streams"),
    ],
)
def test_ray_settings_are_checked(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve_ray_deployment(config(**settings))


def test_ray_accepts_a_folder_without_gpu(tmp_path: Path) -> None:
    resolved = resolve_ray_deployment(config(model=str(tmp_path), gpus=[], container_max_streams=2))
    assert (resolved.gpus, streams(resolved)) == ((), (2, 1))
    assert resolved.config.model.max_streams is None, "its own calibration may find less"


def test_ray_has_no_limit_of_streams() -> None:
    many = config(container_max_streams=1200)
    assert streams(resolve_ray_deployment(many)) == (1200, 960)
    assert streams(resolve_deployment(many)) == (1000, 800)


def test_packages_of_the_image_are_those_that_are_tested() -> None:
    """Modal's image has every package of the extras that it needs, in the versions of the constraints file."""
    assert constraints_file() == Path(__file__).parents[2] / "constraints.txt"
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in constraints_file().read_text().splitlines()}
    base, server, whole = requirements(()), requirements(("server",)), requirements(("server", "torch"))
    assert set(base) < set(server) < set(whole)
    names = [re.split(r"[>=<]", requirement)[0].lower().replace("_", "-") for requirement in whole]
    assert {"av", "uvicorn", "uvloop", "torch"} <= set(names) <= pinned
    assert len(set(names)) == len(names)


def test_packages_without_the_constraints_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "CONSTRAINTS", "none.txt")
    with pytest.raises(ConfigError, match="install Tympan from its wheel or its clone"):
        constraints_file()

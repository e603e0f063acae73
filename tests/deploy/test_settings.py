"""What a platform would let through is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pinned import PINNED

from tympan.config import as_environment, load_config
from tympan.deploy.settings import settle, settle_for_ray
from tympan.errors import ConfigError


def config(**settings: object) -> object:
    return load_config(environment={}, overrides={"model": PINNED, **settings})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gpus": ["NOSUCH"]}, "Modal has no GPU 'NOSUCH'"),
        ({"gpus": ["L40S:2"]}, "one per container"),
        ({"gpus": []}, "this model needs one"),
        ({"gpus": ["B300"]}, "set container_max_streams"),
        ({"model": "kyutai/stt-1b-en_fr-candle"}, "pin the model to a commit"),
        ({"model": "kyutai/stt-1b-en_fr-candle@main"}, "pin the model to a commit"),
        ({"routing_region": "mars"}, "us-east, us-west"),
        ({"min_containers": 10}, "more than max_containers"),
        ({"gpu_snapshot": True, "memory_snapshot": False}, "needs memory_snapshot"),
        ({"gpu_snapshot": True, "model": "embedded"}, "and a GPU"),
        ({"container_target_streams": 20, "container_max_streams": 10}, "above container_max_streams"),
    ],
)
def test_a_wrong_deployment_is_one_sentence(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        settle(config(**settings))  # type: ignore[arg-type]


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
def test_ranges_are_the_settings_own(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        config(**{name: value})


def test_a_container_comes_to_the_settings_of_the_machine_that_deployed() -> None:
    here = settle(config(gpus=["l40s", "H100"], shape="class", memory_snapshot=False, idle_seconds=5))  # type: ignore[arg-type]
    environment = {name: value for name, value in here.environment.items() if name.startswith("TYMPAN_")}
    there = settle(load_config(environment=environment), check=False)
    assert there == here
    assert here.config.limits.handover_seconds == 3600 - 30


def test_keys_do_not_travel_as_settings() -> None:
    secrets = load_config(environment={}, overrides={"api_keys": ["k"], "token_secret": "t"})
    assert as_environment(secrets) == {}


def test_a_container_is_told_what_the_autoscaler_is_told() -> None:
    settled = settle(config())  # type: ignore[arg-type]
    assert settled.config.model.max_streams is None, "its own calibration may find less"
    assert settled.config.deploy.container_max_streams == settled.container_max_streams
    assert settled.container_target_streams < settled.container_max_streams
    both = settle(config(gpus=["H100", "L40S"]))  # type: ignore[arg-type]
    assert both.container_max_streams == settled.container_max_streams  # whichever carries less
    embedded = settle(config(model="embedded"))  # type: ignore[arg-type]
    assert (embedded.gpus, embedded.weights, embedded.container_max_streams) == ((), None, 4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gpus": ["B300"]}, "set container_max_streams"),
        ({"gpus": []}, "set container_max_streams"),
        ({"model": "kyutai/stt-1b-en_fr-candle"}, "pin the model to a commit"),
        ({"min_containers": 11}, "more than max_containers"),
        ({"container_target_streams": 20, "container_max_streams": 10}, "above container_max_streams"),
    ],
)
def test_a_wrong_deployment_on_ray_is_one_sentence(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        settle_for_ray(config(**settings))  # type: ignore[arg-type]


def test_on_ray_a_model_may_be_a_folder_and_run_without_a_gpu(tmp_path: Path) -> None:
    settled = settle_for_ray(config(model=str(tmp_path), gpus=[], container_max_streams=2))  # type: ignore[arg-type]
    assert (settled.gpus, settled.container_max_streams, settled.container_target_streams) == ((), 2, 1)
    assert settled.config.deploy.container_max_streams == 2
    assert settled.config.model.max_streams is None, "its own calibration may find less"


def test_ray_has_no_limit_of_its_own_to_the_streams_of_a_replica() -> None:
    many = config(container_max_streams=1200)
    assert settle_for_ray(many).container_max_streams == 1200  # type: ignore[arg-type]
    assert settle(many).container_max_streams == 1000  # type: ignore[arg-type]

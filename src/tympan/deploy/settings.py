"""What is deployed, settled before anything is sent: the platform's client checks hardly any of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tympan.config import Config, as_environment
from tympan.deploy.capacity import MODELS, capacity
from tympan.deploy.plan import TARGET_SHARE
from tympan.deploy.prices import GPUS
from tympan.errors import ConfigError

MODAL_GPUS: Final = (*GPUS, "A100", "B300")
ROUTING_REGIONS: Final = ("us-east", "us-west", "ca-central", "eu-west", "ap-south")
MOST_INPUTS: Final = 1000
ENGINES_WITHOUT_GPU: Final = ("embedded", "scripted")
LOCAL_MODELS: Final = (*ENGINES_WITHOUT_GPU, "random:")
PINNED: Final = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
PORT: Final = 8000
LAST_WORDS_SECONDS: Final = 30  # before the platform would cut a connection


@dataclass(frozen=True, slots=True)
class Deployment:
    """A checked configuration. `gpus` may be empty; `weights` is what is baked into the image, if anything."""

    config: Config
    gpus: tuple[str, ...]
    container_target_streams: int
    container_max_streams: int
    weights: tuple[str, str] | None
    """Repository and revision."""

    @property
    def environment(self) -> dict[str, str]:
        """What a container needs to come to the same settings."""
        return {**as_environment(self.config), **({"HF_HUB_OFFLINE": "1"} if self.weights else {})}


def settle(config: Config, *, check: bool = True) -> Deployment:
    """Fill in what Modal is told. `check` is for the machine that deploys; raises `ConfigError` there."""
    model = config.model.model
    gpus = _gpus(config)
    if check:
        _check_modal(config, gpus)
    maximum, target = _streams(config, gpus, MOST_INPUTS, check=check)
    config = replace(
        config,
        server=replace(config.server, host="0.0.0.0", port=PORT),
        limits=replace(config.limits, handover_seconds=_handover_seconds(config)),
        deploy=replace(config.deploy, container_max_streams=maximum, container_target_streams=target),
    )
    repository, _, revision = model.partition("@")
    weights = None if model.startswith(LOCAL_MODELS) else (repository, revision)
    return Deployment(config, gpus, target, maximum, weights)


def settle_for_ray(config: Config) -> Deployment:
    """Fill in what Ray Serve is told; its replicas find their weights themselves. Raises `ConfigError`."""
    deploy, gpus = config.deploy, _gpus(config)
    if deploy.min_containers > deploy.max_containers:
        raise ConfigError(
            f"min_containers ({deploy.min_containers}) is more than max_containers ({deploy.max_containers})"
        )
    _check_known(config, gpus)
    if not gpus and config.model.model not in ENGINES_WITHOUT_GPU and deploy.container_max_streams is None:
        raise ConfigError(
            "gpus is empty, and nobody knows what this model carries without one: set container_max_streams"
        )
    if not Path(config.model.model).is_dir():
        _check_pinned(config.model.model)
    maximum, target = _streams(config, gpus, None, check=True)
    config = replace(config, deploy=replace(deploy, container_max_streams=maximum, container_target_streams=target))
    return Deployment(config, gpus, target, maximum, None)


def _gpus(config: Config) -> tuple[str, ...]:
    return () if config.model.model in ENGINES_WITHOUT_GPU else tuple(gpu.upper() for gpu in config.deploy.gpus)


def _streams(config: Config, gpus: tuple[str, ...], limit: int | None, *, check: bool) -> tuple[int, int]:
    """The most that one container takes, and how many the autoscaler should aim at."""
    deploy = config.deploy
    carried = (_carried(gpu, config.model.model) for gpu in gpus)
    most = min(carried, default=max(1, int(deploy.container_cpu)))
    maximum = deploy.container_max_streams or config.model.max_streams or most
    maximum = min(maximum, limit or maximum)
    target = deploy.container_target_streams or max(1, int(TARGET_SHARE * maximum))
    if check and target > maximum:
        raise ConfigError(f"container_target_streams is {target}, above container_max_streams, which is {maximum}")
    return maximum, target


def _carried(gpu: str, model: str) -> int:
    card = GPUS.get("A100-40GB" if gpu == "A100" else gpu)
    size = next((size for size in MODELS if f"{size}-" in f"{model}-"), "1b")
    return max(1, capacity(card, MODELS[size], "bf16").streams) if card else 1


def _handover_seconds(config: Config) -> float | None:
    if config.deploy.shape == "server" or config.limits.handover_seconds is not None:
        return config.limits.handover_seconds
    return float(config.deploy.timeout_seconds - LAST_WORDS_SECONDS)


def _check_known(config: Config, gpus: tuple[str, ...]) -> None:
    for gpu in gpus:
        if gpu not in GPUS and gpu != "A100" and config.deploy.container_max_streams is None:
            raise ConfigError(f"nobody knows yet what a {gpu} carries: set container_max_streams")


def _check_pinned(model: str) -> None:
    if not model.startswith(LOCAL_MODELS) and not PINNED.fullmatch(model):
        raise ConfigError(
            f"pin the model to a commit, so that every container has the same weights: {model.partition('@')[0]}@ and "
            "40 hexadecimal digits"
        )


def _check_modal(config: Config, gpus: tuple[str, ...]) -> None:
    deploy = config.deploy
    for gpu in gpus:
        if gpu not in MODAL_GPUS:
            raise ConfigError(f"Modal has no GPU {gpu!r} (one per container); the GPUs are: {', '.join(MODAL_GPUS)}")
    _check_known(config, gpus)
    if not gpus and config.model.model not in ENGINES_WITHOUT_GPU:
        raise ConfigError("gpus is empty, and this model needs one")
    _check_pinned(config.model.model)
    if deploy.routing_region not in ROUTING_REGIONS:
        regions = ", ".join(ROUTING_REGIONS)
        raise ConfigError(f"routing_region is {deploy.routing_region!r}; the regions are: {regions}")
    if not deploy.min_containers + deploy.buffer_containers <= deploy.max_containers:
        raise ConfigError(
            f"min_containers ({deploy.min_containers}) and buffer_containers ({deploy.buffer_containers}) together are "
            f"more than max_containers ({deploy.max_containers})"
        )
    if deploy.gpu_snapshot and not (deploy.memory_snapshot and gpus):
        raise ConfigError("gpu_snapshot needs memory_snapshot and a GPU")

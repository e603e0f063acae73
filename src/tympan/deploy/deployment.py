"""The settings of a deployment, resolved and checked before anything is sent: the platforms' clients check little."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tympan.config import Config, DeploySettings, as_environment
from tympan.deploy.capacity import MODELS, capacity
from tympan.deploy.costs import TARGET_SHARE
from tympan.deploy.prices import GPUS
from tympan.errors import ConfigError

MODAL_GPUS: Final = (*GPUS, "A100", "B300")
ROUTING_REGIONS: Final = ("us-east", "us-west", "ca-central", "eu-west", "ap-south")
MAX_INPUTS: Final = 1000  # of one container on Modal
ENGINES_WITHOUT_GPU: Final = ("embedded", "scripted")
LOCAL_MODELS: Final = (*ENGINES_WITHOUT_GPU, "random:")
PINNED: Final = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
PORT: Final = 8000
HANDOVER_SECONDS: Final = 30  # from the hand-over to the platform's timeout


@dataclass(frozen=True, slots=True)
class Deployment:
    """A resolved and checked configuration.

    Attributes:
        config: The settings, with the streams of a container filled in.
        gpus: GPU types, the preferred one first; empty for none.
        weights: Repository and revision of the weights to store in the image; None if there are none.
    """

    config: Config
    gpus: tuple[str, ...]
    weights: tuple[str, str] | None

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which a container resolves the same settings."""
        return {**as_environment(self.config), **({"HF_HUB_OFFLINE": "1"} if self.weights else {})}


def resolve_deployment(config: Config, *, check: bool = True) -> Deployment:
    """Resolve the settings of a deployment on Modal.

    Args:
        config: The configuration.
        check: Whether to check it; False in a container, whose settings are checked before they are deployed.

    Raises:
        ConfigError: A setting is not valid on Modal.
    """
    model = config.model.model
    gpus = _gpus(config)
    if check:
        _check_modal(config, gpus)
    handover_seconds = config.limits.handover_seconds
    if handover_seconds is None and config.deploy.shape == "class":
        handover_seconds = float(config.deploy.timeout_seconds - HANDOVER_SECONDS)
    config = replace(
        config,
        # Any client can reach the platform's address, so a rebound name gives a web page access to nothing more.
        server=replace(config.server, host="0.0.0.0", port=PORT, allowed_hosts=config.server.allowed_hosts or ("*",)),
        limits=replace(config.limits, handover_seconds=handover_seconds),
        deploy=_with_streams(config, gpus, MAX_INPUTS, check=check),
    )
    repository, _, revision = model.partition("@")
    weights = None if model.startswith(LOCAL_MODELS) else (repository, revision)
    return Deployment(config, gpus, weights)


def resolve_ray_deployment(config: Config) -> Deployment:
    """Resolve the settings of a deployment on Ray Serve, whose replicas load the weights themselves.

    Raises:
        ConfigError: A setting is not valid on Ray Serve.
    """
    deploy, gpus = config.deploy, _gpus(config)
    if deploy.min_containers > deploy.max_containers:
        raise ConfigError(
            f"min_containers ({deploy.min_containers}) is more than max_containers ({deploy.max_containers})"
        )
    _check_known(config, gpus)
    if not gpus and config.model.model not in ENGINES_WITHOUT_GPU and deploy.container_max_streams is None:
        raise ConfigError("the capacity of this model without a GPU is unknown: set gpus or container_max_streams")
    if not Path(config.model.model).is_dir():
        _check_pinned(config.model.model)
    return Deployment(replace(config, deploy=_with_streams(config, gpus, None, check=True)), gpus, None)


def _gpus(config: Config) -> tuple[str, ...]:
    return () if config.model.model in ENGINES_WITHOUT_GPU else tuple(gpu.upper() for gpu in config.deploy.gpus)


def _with_streams(config: Config, gpus: tuple[str, ...], limit: int | None, *, check: bool) -> DeploySettings:
    """Return the deploy settings with the maximum and the target of a container's streams filled in."""
    deploy = config.deploy
    carried = (_carried_streams(gpu, config.model.model) for gpu in gpus)
    smallest = min(carried, default=max(1, int(deploy.container_cpu)))
    maximum = deploy.container_max_streams or config.model.max_streams or smallest
    maximum = min(maximum, limit or maximum)
    target = deploy.container_target_streams or max(1, int(TARGET_SHARE * maximum))
    if check and target > maximum:
        raise ConfigError(f"container_target_streams ({target}) is above container_max_streams ({maximum})")
    return replace(deploy, container_max_streams=maximum, container_target_streams=target)


def _carried_streams(gpu: str, model: str) -> int:
    card = GPUS.get("A100-40GB" if gpu == "A100" else gpu)
    size = next((size for size in MODELS if f"{size}-" in f"{model}-"), "1b")
    return max(1, capacity(card, MODELS[size], "bf16").streams) if card else 1


def _check_known(config: Config, gpus: tuple[str, ...]) -> None:
    for gpu in gpus:
        if gpu not in GPUS and gpu != "A100" and config.deploy.container_max_streams is None:
            raise ConfigError(f"the capacity of the GPU {gpu} is unknown: set container_max_streams")


def _check_pinned(model: str) -> None:
    if not model.startswith(LOCAL_MODELS) and not PINNED.fullmatch(model):
        raise ConfigError(
            f"invalid model {model!r}: pin the model to a commit, so that every container has the same weights: "
            f"{model.partition('@')[0]}@ and 40 hexadecimal digits"
        )


def _check_modal(config: Config, gpus: tuple[str, ...]) -> None:
    deploy = config.deploy
    for gpu in gpus:
        if gpu not in MODAL_GPUS:
            raise ConfigError(f"Modal has no GPU {gpu!r}: expected one per container, of {', '.join(MODAL_GPUS)}")
    _check_known(config, gpus)
    if not gpus and config.model.model not in ENGINES_WITHOUT_GPU:
        raise ConfigError("gpus is empty, but this model needs one")
    _check_pinned(config.model.model)
    if deploy.routing_region not in ROUTING_REGIONS:
        regions = ", ".join(ROUTING_REGIONS)
        raise ConfigError(f"invalid routing_region {deploy.routing_region!r}: expected one of {regions}")
    if not deploy.min_containers + deploy.buffer_containers <= deploy.max_containers:
        raise ConfigError(
            f"min_containers ({deploy.min_containers}) plus buffer_containers ({deploy.buffer_containers}) is more "
            f"than max_containers ({deploy.max_containers})"
        )
    if deploy.gpu_snapshot and not (deploy.memory_snapshot and gpus):
        raise ConfigError("gpu_snapshot needs memory_snapshot and a GPU")

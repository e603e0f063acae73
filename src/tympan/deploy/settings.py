"""What is deployed, settled before anything is sent: the platform's client checks hardly any of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
LOCAL_MODELS: Final = ("embedded", "scripted", "random:")
PINNED: Final = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
PORT: Final = 8000
LAST_WORDS_SECONDS: Final = 30  # before the platform would cut a connection


@dataclass(frozen=True, slots=True)
class Deployment:
    """A checked configuration. `gpus` may be empty; `weights` is what is baked into the image, if anything."""

    config: Config
    gpus: tuple[str, ...]
    target_streams: int
    maximum_streams: int
    weights: tuple[str, str] | None
    """Repository and revision."""

    @property
    def environment(self) -> dict[str, str]:
        """What a container needs to come to the same settings."""
        return {**as_environment(self.config), **({"HF_HUB_OFFLINE": "1"} if self.weights else {})}


def settle(config: Config, *, check: bool = True) -> Deployment:
    """Fill in what follows from the settings. `check` is for the machine that deploys; raises `ConfigError` there."""
    deploy, model = config.deploy, config.model.model
    gpus = () if model in ("embedded", "scripted") else tuple(gpu.upper() for gpu in deploy.gpus)
    if check:
        _check(config, gpus)
    most = min((_carried(gpu, model) for gpu in gpus), default=max(1, int(deploy.container_cpu)))
    maximum = min(deploy.maximum_streams or config.model.max_streams or most, MOST_INPUTS)
    target = deploy.target_streams or max(1, int(TARGET_SHARE * maximum))
    if check and target > maximum:
        raise ConfigError(f"target_streams is {target}, above maximum_streams, which is {maximum}")
    config = replace(
        config,
        server=replace(config.server, host="0.0.0.0", port=PORT),
        limits=replace(config.limits, handover_seconds=_handover_seconds(config)),
        deploy=replace(deploy, maximum_streams=maximum, target_streams=target),
    )
    repository, _, revision = model.partition("@")
    weights = None if model.startswith(LOCAL_MODELS) else (repository, revision)
    return Deployment(config, gpus, target, maximum, weights)


def _carried(gpu: str, model: str) -> int:
    card = GPUS.get("A100-40GB" if gpu == "A100" else gpu)
    size = next((size for size in MODELS if f"{size}-" in f"{model}-"), "1b")
    return max(1, capacity(card, MODELS[size], "bf16").streams) if card else 1


def _handover_seconds(config: Config) -> float | None:
    if config.deploy.shape == "server" or config.limits.handover_seconds is not None:
        return config.limits.handover_seconds
    return float(config.deploy.timeout_seconds - LAST_WORDS_SECONDS)


def _check(config: Config, gpus: tuple[str, ...]) -> None:
    deploy, model = config.deploy, config.model.model
    for gpu in gpus:
        if gpu not in MODAL_GPUS:
            raise ConfigError(f"Modal has no GPU {gpu!r} (one per container); the GPUs are: {', '.join(MODAL_GPUS)}")
        if gpu not in GPUS and gpu != "A100" and deploy.maximum_streams is None:
            raise ConfigError(f"nobody knows yet what a {gpu} carries: set maximum_streams")
    if gpus == () and model not in ("embedded", "scripted"):
        raise ConfigError("gpus is empty, and this model needs one")
    if not model.startswith(LOCAL_MODELS) and not PINNED.fullmatch(model):
        raise ConfigError(
            f"pin the model to a commit, so that every container has the same weights: {model.partition('@')[0]}@ and "
            "40 hexadecimal digits"
        )
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

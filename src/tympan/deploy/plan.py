"""A fleet for so many streams at once: containers, headroom and money, for each GPU that could be taken.

Every figure follows from the `inputs` of its row; `explain` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

from tympan.config import DeploySettings
from tympan.deploy.capacity import Capacity, ModelBytes, Run, capacity
from tympan.deploy.fleet import FleetResult, FleetRules
from tympan.deploy.prices import (
    CPU_CORE_DOLLARS_PER_SECOND,
    GPUS,
    MEMORY_GIB_DOLLARS_PER_SECOND,
    PRICES_AS_OF,
    PRICES_SOURCE,
    Gpu,
    container_dollars_per_second,
)
from tympan.errors import ConfigError

TARGET_SHARE: Final = 0.8  # of what a container carries; the rest is there before a new container is
RULE_OF_THUMB_STREAMS: Final = 10
RULE_OF_THUMB_GPU: Final = "L40S"
HOURS_PER_DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Choice:
    """One GPU type: streams of one container, containers for all, dollars per hour, and where it all comes from.

    `headroom` is the share of the fleet's places that stays free.
    """

    gpu: str
    container_max_streams: int
    container_target_streams: int
    limit: str
    basis: str
    containers: int
    headroom: float
    dollars_per_hour: float
    dollars_per_stream_hour: float
    dollars_per_audio_hour: float
    dollars_per_container_second: float
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """`streams` at once; `audio_hours` in them per day, by default every stream's whole day."""

    streams: int
    audio_hours: float | None = None

    @property
    def audio_hours_per_hour(self) -> float:
        return self.streams if self.audio_hours is None else self.audio_hours / HOURS_PER_DAY


def choices(
    demand: Demand,
    names: Iterable[str],
    model: ModelBytes,
    kv_dtype: str,
    settings: DeploySettings,
    runs: Sequence[Run],
) -> list[Choice]:
    """A row per GPU that can carry a stream, the cheapest first. Raises `ConfigError` if there is none."""
    rows = []
    for gpu in map(find_gpu, names):
        found = capacity(gpu, model, kv_dtype, runs)
        maximum = settings.container_max_streams or found.streams
        if maximum < 1:
            continue
        target = settings.container_target_streams or max(1, int(TARGET_SHARE * maximum))
        if target > maximum:
            raise ConfigError(
                f"container_target_streams is {target}, but a container of one {gpu.name} carries {maximum}"
            )
        if settings.container_max_streams:
            found = Capacity(maximum, "given", "setting", (f"container_max_streams = {maximum} (setting)",))
        rows.append(_choice(demand, gpu, found, target, settings))
    if not rows:
        raise ConfigError(f"not one stream of the {model.name} model fits these GPUs")
    return sorted(rows, key=lambda row: (row.dollars_per_hour, row.containers))


def rule_of_thumb(demand: Demand, settings: DeploySettings) -> Choice:
    """What the common advice, ten streams on an L40S, would come to."""
    inputs = (f"{RULE_OF_THUMB_STREAMS} streams per {RULE_OF_THUMB_GPU}, no free places",)
    advice = Capacity(RULE_OF_THUMB_STREAMS, "rule of thumb", "advice", inputs)
    return _choice(demand, GPUS[RULE_OF_THUMB_GPU], advice, RULE_OF_THUMB_STREAMS, settings)


def find_gpu(name: str) -> Gpu:
    """The GPU of that name, in either case. Raises `ConfigError` with the names there are."""
    gpu = GPUS.get(name.upper())
    if gpu is None:
        raise ConfigError(f"no price is known for the GPU {name!r}; the GPUs are: {', '.join(GPUS)}")
    return gpu


def _choice(demand: Demand, gpu: Gpu, found: Capacity, target: int, settings: DeploySettings) -> Choice:
    containers = ceil(demand.streams / target)
    second = container_dollars_per_second(gpu, settings)
    hour = containers * second * 3600
    memory = settings.container_memory_mib / 1024
    price = (
        f"${gpu.dollars_per_second:.6f}/s for the GPU, {settings.container_cpu:g} cores at "
        f"${CPU_CORE_DOLLARS_PER_SECOND:.7f}/s, {memory:g} GiB at ${MEMORY_GIB_DOLLARS_PER_SECOND:.8f}/s: "
        f"${3600 * second:.3f}/h per container"
    )
    return Choice(
        gpu=gpu.name,
        container_max_streams=found.streams,
        container_target_streams=target,
        limit=found.limit,
        basis=found.basis,
        containers=containers,
        headroom=round(1 - demand.streams / (containers * found.streams), 3),
        dollars_per_hour=round(hour, 2),
        dollars_per_stream_hour=round(hour / demand.streams, 5),
        dollars_per_audio_hour=round(hour / demand.audio_hours_per_hour, 5),
        dollars_per_container_second=second,
        inputs=(*found.inputs, f"{target} streams wanted of at most {found.streams} per container", price),
    )


def fleet_rules(choice: Choice, settings: DeploySettings, cold_start: float, patience: float) -> FleetRules:
    """The autoscaler's rules for a fleet of that choice. Raises `ConfigError` for limits that contradict each other."""
    if settings.min_containers > settings.max_containers:
        raise ConfigError(
            f"min_containers is {settings.min_containers}, above max_containers, which is {settings.max_containers}"
        )
    return FleetRules(
        min_containers=settings.min_containers,
        buffer_containers=settings.buffer_containers,
        max_containers=settings.max_containers,
        container_target_streams=choice.container_target_streams,
        container_max_streams=choice.container_max_streams,
        scaledown_window=float(settings.scaledown_window),
        cold_start_seconds=cold_start,
        patience_seconds=patience,
    )


def table(rows: Sequence[Choice]) -> str:
    """The rows for people."""
    lines = [
        f"{'GPU':<14}{'carries':>8}{'target':>8}{'containers':>12}{'headroom':>10}{'$/hour':>12}{'$/stream-hour':>15}"
        f"{'$/audio-hour':>14}  basis"
    ]
    lines += [
        f"{row.gpu:<14}{row.container_max_streams:>8}{row.container_target_streams:>8}{row.containers:>12}{row.headroom:>10.0%}"
        f"{row.dollars_per_hour:>12,.2f}{row.dollars_per_stream_hour:>15.4f}{row.dollars_per_audio_hour:>14.4f}"
        f"  {row.basis}" + ("" if row.limit in ("advice", "setting") else f" ({row.limit})")
        for row in rows
    ]
    return "\n".join(lines)


def explain(rows: Sequence[Choice]) -> str:
    """What every row follows from."""
    lines = [f"prices as of {PRICES_AS_OF}: {PRICES_SOURCE}"]
    for row in rows:
        lines += [f"{row.gpu} ({row.basis})", *(f"  {line}" for line in row.inputs)]
    return "\n".join(lines)


def fleet_summary(result: FleetResult, choice: Choice) -> dict[str, Any]:
    """The simulation in numbers, with its money."""
    plain = {name: value for name, value in asdict(result).items() if name not in _CURVES}
    dollars = result.container_seconds * choice.dollars_per_container_second
    hours = result.stream_seconds / 3600
    return {**plain, "dollars": dollars, "dollars_per_stream_hour": dollars / hours if hours else None}


_CURVES: Final = ("times", "open_streams", "containers")


def fleet_table(summary: dict[str, Any]) -> str:
    """That for people."""
    each = summary["dollars_per_stream_hour"]
    return "\n".join(
        [
            f"  streams      {summary['arrivals']:,}: {summary['on_time']:,} on time, {summary['late']:,} late "
            f"(longest wait {summary['longest_wait']:.1f} s), {summary['refused']:,} refused",
            f"  peak         {summary['peak_streams']:,} streams, {summary['peak_containers']:,} containers",
            f"  cost         ${summary['dollars']:,.2f}, {summary['container_seconds'] / 3600:,.1f} container-hours, "
            + ("nobody was served" if each is None else f"${each:.4f} per stream-hour"),
            f"  utilisation  {summary['utilisation']:.0%} of the places that were paid for",
        ]
    )

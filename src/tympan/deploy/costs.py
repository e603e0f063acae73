"""The size and cost of a fleet for a number of concurrent streams, for each type of GPU.

Every figure follows from the `inputs` of its row, which `explain` prints.
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
from tympan.deploy.processes import BUSY_SHARE, ENGINE_MS, FRONT_MS, processes_for, streams_of
from tympan.errors import ConfigError, closest

TARGET_SHARE: Final = 0.8  # share of a container's streams to aim at; the rest serves bursts while one starts
RULE_OF_THUMB_STREAMS: Final = 10
RULE_OF_THUMB_GPU: Final = "L40S"
HOURS_PER_DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Choice:
    """A fleet with one type of GPU.

    Attributes:
        gpu: Name of the GPU.
        container_max_streams: Most streams of one container.
        container_target_streams: Streams of one container that the autoscaler aims at.
        limit: What limits the streams of a container.
        basis: Where that number comes from, as in `Capacity`.
        containers: Number of containers for all streams.
        headroom: Share of the fleet's capacity that is free.
        fronts: Front processes of a container that carries its most streams (`--fronts`).
        engine_processes: Its engine processes.
        cores: CPU cores that they use then.
        inputs: Sentences from which all figures can be derived.
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
    fronts: int
    engine_processes: int
    cores: float
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """Concurrent streams, and the hours of audio in them per day; None if all streams carry audio all day."""

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
    """Return a fleet for each GPU that carries at least one stream, the cheapest first.

    Raises:
        ConfigError: A GPU is unknown, the settings contradict each other, or no GPU carries a stream.
    """
    rows = []
    for name in names:
        gpu = GPUS.get(name.upper())
        if gpu is None:
            raise ConfigError(f"unknown GPU {name!r}: expected one of {', '.join(GPUS)}{closest(name, GPUS)}")
        carried = _within_cores(capacity(gpu, model, kv_dtype, runs), settings.container_cpu)
        maximum = settings.container_max_streams or carried.streams
        if maximum < 1:
            continue
        target = settings.container_target_streams or max(1, int(TARGET_SHARE * maximum))
        if target > maximum:
            raise ConfigError(
                f"container_target_streams is {target}, but a container of one {gpu.name} carries {maximum}"
            )
        if settings.container_max_streams:
            carried = Capacity(maximum, "given", "setting", (f"container_max_streams = {maximum} (setting)",))
        rows.append(_choice(demand, gpu, carried, target, settings))
    if not rows:
        raise ConfigError(f"none of these GPUs carries a stream of the {model.name} model: choose a larger one")
    return sorted(rows, key=lambda row: (row.dollars_per_hour, row.containers))


def rule_of_thumb(demand: Demand, settings: DeploySettings) -> Choice:
    """Return the fleet according to the common advice of ten streams per L40S."""
    inputs = (f"{RULE_OF_THUMB_STREAMS} streams per {RULE_OF_THUMB_GPU}, no headroom",)
    advice = Capacity(RULE_OF_THUMB_STREAMS, "rule of thumb", "advice", inputs)
    return _choice(demand, GPUS[RULE_OF_THUMB_GPU], advice, RULE_OF_THUMB_STREAMS, settings)


def _within_cores(carried: Capacity, cores: float) -> Capacity:
    """Return the capacity of a GPU whose container has so many CPU cores."""
    most = streams_of(cores)
    if carried.streams <= most:
        return carried
    reason = f"{cores:g} cores serve {most} streams ({FRONT_MS:g} + {ENGINE_MS:g} ms of CPU per second of a stream)"
    return Capacity(most, carried.basis, "cores", (*carried.inputs, reason))


def _choice(demand: Demand, gpu: Gpu, carried: Capacity, target: int, settings: DeploySettings) -> Choice:
    containers = ceil(demand.streams / target)
    second = container_dollars_per_second(gpu, settings)
    hour = containers * second * 3600
    memory = settings.container_memory_mib / 1024
    price = (
        f"${gpu.dollars_per_second:.6f}/s for the GPU, {settings.container_cpu:g} cores at "
        f"${CPU_CORE_DOLLARS_PER_SECOND:.7f}/s, {memory:g} GiB at ${MEMORY_GIB_DOLLARS_PER_SECOND:.8f}/s: "
        f"${3600 * second:.3f}/h per container"
    )
    needed = processes_for(carried.streams)
    serving = (
        f"{carried.streams} streams need {needed.fronts} front and {needed.engine_processes} engine processes on "
        f"{needed.cores:g} cores: {FRONT_MS:g} and {ENGINE_MS:g} ms per second of a stream, cores {BUSY_SHARE:.0%} busy"
    )
    return Choice(
        gpu=gpu.name,
        container_max_streams=carried.streams,
        container_target_streams=target,
        limit=carried.limit,
        basis=carried.basis,
        containers=containers,
        headroom=round(1 - demand.streams / (containers * carried.streams), 3),
        dollars_per_hour=round(hour, 2),
        dollars_per_stream_hour=round(hour / demand.streams, 5),
        dollars_per_audio_hour=round(hour / demand.audio_hours_per_hour, 5),
        dollars_per_container_second=second,
        fronts=needed.fronts,
        engine_processes=needed.engine_processes,
        cores=needed.cores,
        inputs=(
            *carried.inputs,
            serving,
            f"target of {target} and maximum of {carried.streams} streams per container",
            price,
        ),
    )


def fleet_rules(choice: Choice, settings: DeploySettings, cold_start: float, patience: float) -> FleetRules:
    """Return the rules of the autoscaler for a fleet.

    Args:
        choice: The fleet.
        settings: The limits of the autoscaler.
        cold_start: Seconds from requesting a container to its first stream.
        patience: Seconds for which a refused client retries.

    Raises:
        ConfigError: The limits contradict each other.
    """
    if settings.min_containers > settings.max_containers:
        raise ConfigError(
            f"min_containers ({settings.min_containers}) is above max_containers ({settings.max_containers})"
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
    """Return the fleets as a table for a terminal."""
    lines = [
        f"{'GPU':<14}{'carries':>8}{'target':>8}{'fronts':>8}{'containers':>12}{'headroom':>10}{'$/hour':>12}{'$/stream-hour':>15}"
        f"{'$/audio-hour':>14}  basis"
    ]
    lines += [
        f"{row.gpu:<14}{row.container_max_streams:>8}{row.container_target_streams:>8}{row.fronts:>8}{row.containers:>12}{row.headroom:>10.0%}"
        f"{row.dollars_per_hour:>12,.2f}{row.dollars_per_stream_hour:>15.4f}{row.dollars_per_audio_hour:>14.4f}"
        f"  {row.basis}" + ("" if row.limit in ("advice", "setting") else f" ({row.limit})")
        for row in rows
    ]
    return "\n".join(lines)


def explain(rows: Sequence[Choice]) -> str:
    """Return the inputs of every row, as text."""
    lines = [f"prices as of {PRICES_AS_OF}: {PRICES_SOURCE}"]
    for row in rows:
        lines += [f"{row.gpu} ({row.basis})", *(f"  {line}" for line in row.inputs)]
    return "\n".join(lines)


def fleet_summary(result: FleetResult, choice: Choice) -> dict[str, Any]:
    """Return the figures of a simulation as JSON values, with its cost."""
    curves = ("times", "open_streams", "containers")
    plain = {name: value for name, value in asdict(result).items() if name not in curves}
    dollars = result.container_seconds * choice.dollars_per_container_second
    hours = result.stream_seconds / 3600
    return {**plain, "dollars": dollars, "dollars_per_stream_hour": dollars / hours if hours else None}


def fleet_table(summary: dict[str, Any]) -> str:
    """Return the summary of a simulation as a table for a terminal."""
    each = summary["dollars_per_stream_hour"]
    return "\n".join(
        [
            f"  streams      {summary['arrivals']:,}: {summary['on_time']:,} on time, {summary['late']:,} late "
            f"(longest wait {summary['longest_wait']:.1f} s), {summary['refused']:,} refused",
            f"  peak         {summary['peak_streams']:,} streams, {summary['peak_containers']:,} containers",
            f"  cost         ${summary['dollars']:,.2f}, {summary['container_seconds'] / 3600:,.1f} container-hours, "
            + ("no stream was served" if each is None else f"${each:.4f} per stream-hour"),
            f"  utilisation  {summary['utilisation']:.0%} of the capacity that was paid for",
        ]
    )

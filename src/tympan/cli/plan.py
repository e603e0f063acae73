"""`tympan plan`: the cost of a fleet, and a simulation of its autoscaler."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tympan.cli.options import add_settings, config_from
from tympan.config import DeploySettings
from tympan.deploy.capacity import MODELS, read_runs
from tympan.deploy.costs import (
    Choice,
    Demand,
    choices,
    explain,
    fleet_rules,
    fleet_summary,
    fleet_table,
    rule_of_thumb,
    table,
)
from tympan.deploy.fleet import simulate
from tympan.deploy.fleet_plot import plot_fleet
from tympan.deploy.prices import GPUS, PRICES_AS_OF
from tympan.deploy.workload import Workload, read_workload, synthetic_day
from tympan.errors import ConfigError

RESULTS: Final = Path("benchmarks/results")
COLD_START_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--streams", type=int, metavar="N", help="Concurrent streams; with --trace synthetic, streams in the whole day."
    )
    parser.add_argument("--audio-hours", type=float, metavar="H", help="Hours of audio per day (default: all day).")
    parser.add_argument("--size", choices=list(MODELS), default="1b", help="Size of the model (default: %(default)s).")
    parser.add_argument(
        "--kv-dtype", choices=("bf16", "fp8"), default="bf16", help="Data type of the KV cache (default: %(default)s)."
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="Measured loads (default: %(default)s)."
    )
    parser.add_argument("--json", action="store_true", help="Print all figures as JSON, and nothing else.")
    parser.add_argument("--explain", action="store_true", help="Print how every figure is calculated.")
    day = parser.add_argument_group("simulation of a day")
    day.add_argument("--trace", metavar="FILE|synthetic", help="CSV of arrivals and durations in seconds.")
    day.add_argument("--seed", type=int, default=0, help="Seed of the synthetic day (default: %(default)s).")
    day.add_argument("--plot", type=Path, metavar="FILE", help="Write a plot (needs matplotlib).")
    day.add_argument(
        "--cold-start",
        type=float,
        default=COLD_START_SECONDS,
        metavar="S",
        help="Start of a container (default: %(default)g).",
    )
    day.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_SECONDS,
        metavar="S",
        help="Seconds for which a refused client tries again (default: %(default)g).",
    )
    add_settings(parser, sections=("deploy",), config=True)


def run(arguments: argparse.Namespace) -> int:
    trace = _trace(arguments)
    demand = _demand(arguments, trace)
    settings = config_from(arguments).deploy
    names = settings.gpus if "gpus" in arguments else tuple(GPUS)
    runs = read_runs(arguments.results)
    rows = choices(demand, names, MODELS[arguments.size], arguments.kv_dtype, settings, runs)
    thumb = rule_of_thumb(demand, settings)
    lines = [
        f"{demand.streams:,} streams of the {arguments.size} model at once; prices as of {PRICES_AS_OF}",
        table([*rows, thumb]),
        "the last line is the common advice of ten streams per L40S; `estimate`: this GPU has not been measured",
    ]
    if arguments.explain:
        lines.append(explain([*rows, thumb]))
    report: dict[str, Any] = {
        "streams": demand.streams,
        "model": arguments.size,
        "kv_dtype": arguments.kv_dtype,
        "prices_as_of": PRICES_AS_OF,
        "best": rows[0].gpu,
        "choices": [asdict(row) for row in rows],
        "rule_of_thumb": asdict(thumb),
    }
    if trace is not None:
        report["day"], day_lines = _day(arguments, trace, rows[0], settings)
        lines += day_lines
    print(json.dumps(report) if arguments.json else "\n".join(lines))
    return 0


def _trace(arguments: argparse.Namespace) -> Workload | None:
    if arguments.trace is None:
        if arguments.plot is not None:
            raise ConfigError("--plot needs a day to draw: add --trace")
        return None
    if arguments.trace != "synthetic":
        if arguments.streams is not None:
            raise ConfigError("--streams and --trace FILE both set the number of streams: leave one out")
        return read_workload(Path(arguments.trace))
    if arguments.streams is None:
        raise ConfigError("--trace synthetic needs --streams, the number of streams in the day")
    return synthetic_day(arguments.streams, arguments.seed)


def _demand(arguments: argparse.Namespace, trace: Workload | None) -> Demand:
    for option, seconds in (("--cold-start", arguments.cold_start), ("--patience", arguments.patience)):
        if seconds < 0:
            raise ConfigError(f"invalid {option} '{seconds:g}': expected seconds, at least 0")
    streams = arguments.streams if trace is None else trace.peak
    if streams is None:
        raise ConfigError("--streams or --trace is required: give the number of concurrent streams")
    if streams < 1:
        raise ConfigError(f"invalid --streams '{streams}': expected at least 1")
    if arguments.audio_hours is not None and not 0 < arguments.audio_hours <= 24 * streams:
        raise ConfigError(
            f"invalid --audio-hours '{arguments.audio_hours:g}': expected above 0 and at most {24 * streams:,} with "
            f"{streams:,} streams"
        )
    return Demand(streams, arguments.audio_hours)


def _day(
    arguments: argparse.Namespace, trace: Workload, choice: Choice, settings: DeploySettings
) -> tuple[dict[str, Any], list[str]]:
    """Return the figures of a simulated day, and the lines to print."""
    rules = fleet_rules(choice, settings, arguments.cold_start, arguments.patience)
    result = simulate(trace, rules)
    summary = fleet_summary(result, choice)
    lines = [
        f"{trace.name}, on {choice.gpu}: {rules.min_containers} to {rules.max_containers} containers, buffer "
        f"{rules.buffer_containers}, window {rules.scaledown_window:g} s, cold start {rules.cold_start_seconds:g} s",
        fleet_table(summary),
    ]
    if choice.containers > settings.max_containers:
        lines.append(f"  the peak needs {choice.containers} containers: raise --max-containers")
    if arguments.plot is not None:
        plot_fleet(result, choice, f"{trace.arrivals.size:,} streams on {choice.gpu} ({trace.name})", arguments.plot)
        lines.append(f"  plot         {arguments.plot}")
    return {"trace": trace.name, "gpu": choice.gpu, "rules": asdict(rules), **summary}, lines

"""`tympan bench engine`: how many streams this machine carries; `tympan bench start`: how soon it carries one;
`tympan bench load` is in `load`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict

from tympan.cli import load
from tympan.cli.settings import add_settings, config_from
from tympan.errors import ConfigError, MissingPackageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    engine = kinds.add_parser("engine", help="time of a step, codec and language model apart; last line JSON")
    engine.add_argument("--streams", default="1,4,16", metavar="N,N,…", help="batch sizes (default: %(default)s)")
    engine.add_argument(
        "--steps", type=int, default=40, metavar="N", help="steps per batch size (default: %(default)s)"
    )
    engine.add_argument(
        "--live",
        metavar="N,N,…",
        help="instead: that many live streams in real time, each at its own phase, some ending and others beginning",
    )
    engine.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="how long each --live load runs (default: %(default)s)"
    )
    engine.add_argument(
        "--moshi", action="store_true", help="with --live: also the moshi package's loop, where that is installed"
    )
    add_settings(engine, sections=("model",))
    engine.set_defaults(measure=_run_engine)
    start = kinds.add_parser(
        "start",
        help="a cold process from its start to its first words, stage by stage; random: models are written to files "
        "first and loaded from those; last line JSON",
    )
    start.add_argument("--runs", type=int, default=3, metavar="N", help="processes (default: %(default)s)")
    add_settings(start, sections=("model",))
    start.set_defaults(measure=_run_start)
    load_help = "live streams on a running server: delays, and whether each word comes once; last line JSON"
    load.add_arguments(kinds.add_parser("load", help=load_help, description=load_help))


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind == "load":
        return load.run(arguments)
    try:
        arguments.measure(arguments)
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"this needs the package {error.name}: pip install 'tympan[torch]'") from None
    return 0


def _run_engine(arguments: argparse.Namespace) -> None:
    streams = _counts(arguments.live or arguments.streams)
    if not streams or min(streams) < 1 or arguments.steps < 2 or arguments.seconds <= 0:
        raise ConfigError("--streams and --live take numbers such as 1,4,16, --steps at least 2, --seconds more than 0")
    _run_live(arguments, streams) if arguments.live else _run_batches(arguments, streams)


def _run_start(arguments: argparse.Namespace) -> None:
    from tympan.bench.start import measure_starts, table

    if arguments.runs < 1:
        raise ConfigError("--runs takes a number of at least 1")
    report = measure_starts(config_from(arguments).model, arguments.runs)
    print(table(report))
    print(json.dumps(asdict(report)))


def _run_batches(arguments: argparse.Namespace, streams: list[int]) -> None:
    from tympan.bench.engine import measure_engine, table

    report = measure_engine(config_from(arguments).model, streams, arguments.steps)
    print(table(report))
    print(json.dumps(asdict(report)))


def _run_live(arguments: argparse.Namespace, streams: list[int]) -> None:
    from tympan.bench.sustained import beside_moshi, measure_sustained, sustained, table

    settings = config_from(arguments).model
    runs = asyncio.run(measure_sustained(settings, streams, arguments.seconds))
    if arguments.moshi:
        runs = beside_moshi(settings, runs)
    print(table(runs))
    print(json.dumps({"sustained_streams": sustained(runs), "runs": runs}))


def _counts(text: str) -> list[int]:
    """Numbers with commas between them; none where it is anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        return []

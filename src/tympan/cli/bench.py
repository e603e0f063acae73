"""`tympan bench engine`: how many streams this machine carries. `tympan bench load` is in `load`."""

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
    load_help = "live streams on a running server: delays, and whether each word comes once; last line JSON"
    load.add_arguments(kinds.add_parser("load", help=load_help, description=load_help))


def run(arguments: argparse.Namespace) -> int:
    return load.run(arguments) if arguments.kind == "load" else _run_engine(arguments)


def _run_engine(arguments: argparse.Namespace) -> int:
    streams = _counts(arguments.live or arguments.streams)
    if not streams or min(streams) < 1 or arguments.steps < 2 or arguments.seconds <= 0:
        raise ConfigError("--streams and --live take numbers such as 1,4,16, --steps at least 2, --seconds more than 0")
    try:
        _run_live(arguments, streams) if arguments.live else _run_batches(arguments, streams)
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"this needs the package {error.name}: pip install 'tympan[torch]'") from None
    return 0


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

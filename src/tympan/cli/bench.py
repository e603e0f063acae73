"""`tympan bench engine`: how many streams this machine carries."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from tympan.cli.settings import add_settings, config_from
from tympan.errors import ConfigError, MissingPackageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    engine = kinds.add_parser("engine", help="time of a step, codec and language model apart; last line JSON")
    engine.add_argument("--streams", default="1,4,16", metavar="N,N,…", help="batch sizes (default: %(default)s)")
    engine.add_argument(
        "--steps", type=int, default=40, metavar="N", help="steps per batch size (default: %(default)s)"
    )
    add_settings(engine, sections=("model",))


def run(arguments: argparse.Namespace) -> int:
    try:
        streams = [int(part) for part in arguments.streams.split(",")]
    except ValueError:
        streams = []
    if not streams or min(streams) < 1 or arguments.steps < 2:
        raise ConfigError("--streams takes batch sizes such as 1,4,16, and --steps at least 2")
    try:
        from tympan.bench.engine import measure_engine, table
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"this needs the package {error.name}: pip install 'tympan[torch]'") from None
    report = measure_engine(config_from(arguments).model, streams, arguments.steps)
    print(table(report))
    print(json.dumps(asdict(report)))
    return 0

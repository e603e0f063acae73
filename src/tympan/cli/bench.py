"""`tympan bench`: measure what this machine carries (`engine`), or a running server (`load`)."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from tympan.cli import load
from tympan.cli.options import add_settings, config_from
from tympan.errors import ConfigError, missing_package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    engine = kinds.add_parser("engine", help="Time of a step, codec and language model apart. The last line is JSON.")
    engine.add_argument("--streams", default="1,4,16", metavar="N,N,…", help="Batch sizes (default: %(default)s).")
    engine.add_argument(
        "--steps", type=int, default=40, metavar="N", help="Steps per batch size (default: %(default)s)."
    )
    add_settings(engine, sections=("model",))
    load_help = "Delays of live streams on a running server, and whether each word arrives once. The last line is JSON."
    load.add_arguments(kinds.add_parser("load", help=load_help, description=load_help))


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind == "load":
        return load.run(arguments)
    streams = _counts(arguments.streams)
    if not streams or min(streams) < 1 or arguments.steps < 2:
        raise ConfigError("--streams takes numbers such as 1,4,16, and --steps a number of at least 2")
    try:
        from tympan.bench.engine import measure_engine, table

        report = measure_engine(config_from(arguments).model, streams, arguments.steps)
    except ModuleNotFoundError as error:
        raise missing_package("this command", error.name, "torch") from None
    print(table(report))
    print(json.dumps(asdict(report)))
    return 0


def _counts(text: str) -> list[int]:
    """Return the numbers between commas, or an empty list if one is not a number."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        return []

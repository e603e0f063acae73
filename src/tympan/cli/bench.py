"""`tympan bench`: measure what this machine carries (`engine`), or a running server (`load`)."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from tympan.cli import load
from tympan.cli.options import add_settings, config_from
from tympan.errors import ConfigError, missing_package

ENGINE_HELP = (
    "Time of a step, codec and language model apart. On a CPU without --dtype, int8 and int4 are measured, and one is "
    "recommended. The last line is JSON."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    engine = kinds.add_parser("engine", help=ENGINE_HELP, description=ENGINE_HELP)
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
    if not streams or min(streams) < 1:
        raise ConfigError(f"invalid --streams {arguments.streams!r}: expected numbers of at least 1, such as 1,4,16")
    if arguments.steps < 2:
        raise ConfigError(f"invalid --steps '{arguments.steps}': expected at least 2")
    try:
        from tympan.bench.engine import measure_data_types, measure_engine, table
        from tympan.engine.kyutai.placement import place

        settings = config_from(arguments).model
        if settings.dtype == "auto" and place(settings).device.type == "cpu":
            reports, recommendation = measure_data_types(settings, streams, arguments.steps)
            print("\n\n".join(map(table, reports)), recommendation, sep="\n\n")
            print(json.dumps({"reports": [asdict(report) for report in reports], "recommendation": recommendation}))
            return 0
        report = measure_engine(settings, streams, arguments.steps)
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

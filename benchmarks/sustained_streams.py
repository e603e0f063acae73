"""Measure how many live streams an engine sustains in real time; each has its own phase, and some end and others begin.

    python benchmarks/sustained_streams.py 500,1000 [--seconds 20] [--moshi] [--model random:1b --device cuda ...]

Every stream has a full context from its first frame. With --moshi the moshi package's loop is measured too; it must be
installed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from sustained.run import beside_moshi, measure_sustained, sustained, table

from tympan.cli.options import add_settings, config_from


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("streams", metavar="N,N,…", help="numbers of live streams, one load after the other")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each load (default: %(default)s)")
    parser.add_argument("--moshi", action="store_true", help="measure the moshi package's loop as well")
    add_settings(parser, sections=("model",))
    arguments = parser.parse_args()
    settings = config_from(arguments).model
    streams = [int(part) for part in arguments.streams.split(",")]
    runs = asyncio.run(measure_sustained(settings, streams, arguments.seconds))
    if arguments.moshi:
        runs = beside_moshi(settings, runs)
    print(table(runs))
    print(json.dumps({"sustained_streams": sustained(runs), "runs": runs}))


if __name__ == "__main__":
    main()

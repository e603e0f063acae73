"""`tympan bench load`: many live streams on a running server."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from tympan.bench.load.dialects import DIALECTS
from tympan.bench.load.spec import LoadSpec
from tympan.cli.options import add_token, token_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="a server, such as ws://localhost:8000")
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="live streams (default: %(default)s)")
    parser.add_argument(
        "--duration", type=float, default=60.0, metavar="S", help="seconds with all of them (default: %(default)g)"
    )
    parser.add_argument(
        "--protocol", choices=list(DIALECTS), default="native", help="how to speak to it (default: %(default)s)"
    )
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="FILE",
        help="speech, sent over and over; a text beside it (talk.txt for talk.wav) is what the word error rate is "
        "measured against. The scripted model does without",
    )
    parser.add_argument(
        "--session", type=float, metavar="S", help="end each session after so much audio and open the next one"
    )
    parser.add_argument("--ramp", type=float, metavar="S", help="seconds in which streams begin (default: 50 a second)")
    parser.add_argument(
        "--flush-every",
        type=float,
        default=10.0,
        metavar="S",
        help="ask for a flush once in so many seconds of each stream; 0: never (default: %(default)g)",
    )
    parser.add_argument("--chunk-ms", type=int, default=80, metavar="MS", help="of a message (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the streams' phases (default: %(default)s)")
    add_token(parser)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write .html or .png (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    # `bench engine` runs where these packages are missing.
    from tympan.bench.load.expected import expect
    from tympan.bench.load.page import check_file, write_report
    from tympan.bench.load.report import figures, table
    from tympan.bench.load.speech import noise, read_speech
    from tympan.bench.load.workers import run_load

    plan = LoadSpec(
        url=arguments.url,
        protocol=arguments.protocol,
        streams=arguments.streams,
        seconds=arguments.duration,
        ramp_seconds=arguments.ramp,
        session_seconds=arguments.session,
        flush_every=arguments.flush_every,
        chunk_ms=arguments.chunk_ms,
        seed=arguments.seed,
        token=token_from(arguments),
    )
    if arguments.report is not None:
        check_file(arguments.report)
    rate = plan.dialect.sample_rate
    chunk = plan.chunk_seconds
    speech = read_speech(arguments.audio, rate, chunk) if arguments.audio else noise(rate, chunk)
    expected = asyncio.run(expect(plan, speech))
    seconds = f"{plan.ramp:.1f} s to open them, then {plan.seconds:g} s"
    print(f"{expected.model} at {plan.base_url}: {plan.streams} streams, {seconds}", file=sys.stderr)
    outcome = run_load(plan, speech, expected)
    result = figures(plan, speech, expected, outcome)
    print(table(result))
    if arguments.report is not None:
        write_report(arguments.report, result, outcome)
        print(f"report: {arguments.report}")
    print(json.dumps(result))
    return 0

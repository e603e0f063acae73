"""Measure the time of a cold process to its first words, by stage.

    python benchmarks/cold_start.py [--runs 3] [--model random:1b --device cpu --dtype int8 ...]

Every run is a separate process (`cold_process.py`), timed by its parent from its start to its first words. The weights
of a random: model are written to files first and loaded from the page cache. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from tympan.cli.options import add_settings, config_from
from tympan.config import ModelSettings
from tympan.errors import EngineError, TympanError

TOTAL = "to the first words"
PROCESS = Path(__file__).with_name("cold_process.py")


@dataclass(frozen=True)
class StartReport:
    """Seconds of each stage and of `TOTAL`, for each run, and their medians."""

    model: str
    from_files: bool
    python: str
    runs: Sequence[Mapping[str, float]]
    median: Mapping[str, float]


def measure_starts(settings: ModelSettings, runs: int) -> StartReport:
    """Return the seconds of each stage, of `runs` processes.

    Raises:
        EngineError: A process ended without words.
    """
    is_random = settings.model.startswith("random:")
    with ExitStack() as stack:
        started = settings
        if is_random:
            from random_checkpoint import write_checkpoint  # needs torch, which other models do not

            folder = stack.enter_context(TemporaryDirectory(prefix="tympan-"))
            write_checkpoint(settings.model, Path(folder))
            started = msgspec.structs.replace(settings, model=folder)
        measured = [_cold_start(started) for _ in range(runs)]
    medians = {stage: round(median(run.get(stage, 0.0) for run in measured), 3) for stage in measured[0]}
    return StartReport(settings.model, is_random, platform.python_version(), measured, medians)


def _cold_start(settings: ModelSettings) -> dict[str, float]:
    spawned = time.monotonic()
    command = (sys.executable, str(PROCESS), str(spawned), msgspec.json.encode(settings).decode())
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - spawned
        _, complaints = process.communicate()
    if not line:
        last = complaints.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise EngineError(f"the process ended without words: {last[0]}")
    stages = msgspec.json.decode(line, type=dict[str, float])
    return {stage: round(value, 3) for stage, value in {**stages, TOTAL: seconds}.items()}


def table(report: StartReport) -> str:
    """Return the report as a table."""
    count = len(report.runs)
    source = " from files in the page cache" if report.from_files else ""
    lines = [
        f"{report.model}{source}, Python {report.python}, {count} cold {'process' if count == 1 else 'processes'}",
        f"{'seconds':<22}{'median':>8}{'least':>8}{'most':>8}",
    ]
    for stage, middle in report.median.items():
        times = [run.get(stage, 0.0) for run in report.runs]
        lines.append(f"{stage:<22}{middle:>8.2f}{min(times):>8.2f}{max(times):>8.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=3, help="number of processes (default: %(default)s)")
    add_settings(parser, sections=("model",))
    arguments = parser.parse_args()
    try:
        report = measure_starts(config_from(arguments).model, arguments.runs)
    except TympanError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(table(report))
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()

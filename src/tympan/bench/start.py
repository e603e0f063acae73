"""How long a cold process takes to its first words, and where the seconds go.

Every run is a process of its own (`cold`). The time is the parent's: from the moment it starts the process to the
moment it reads that the first words are there.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from tympan.config import ModelSettings
from tympan.errors import EngineError

TOTAL = "to the first words"


@dataclass(frozen=True)
class StartReport:
    """Seconds by stage, `TOTAL` among them: of each run, and their medians."""

    model: str
    from_files: bool
    python: str
    runs: Sequence[Mapping[str, float]]
    median: Mapping[str, float]


def measure_starts(settings: ModelSettings, runs: int) -> StartReport:
    """Raises `EngineError` with what a process ended with.

    Weights of a `random:` model are drawn and written before, and loaded from files that the page cache still holds.
    """
    is_random = settings.model.startswith("random:")
    with ExitStack() as stack:
        started = settings
        if is_random:
            from tympan.bench.disk import write_checkpoint

            folder = stack.enter_context(TemporaryDirectory(prefix="tympan-"))
            write_checkpoint(settings.model, Path(folder))
            started = msgspec.structs.replace(settings, model=folder)
        measured = [_cold_start(started) for _ in range(runs)]
    medians = {stage: round(median(run.get(stage, 0.0) for run in measured), 3) for stage in measured[0]}
    return StartReport(settings.model, is_random, platform.python_version(), measured, medians)


def _cold_start(settings: ModelSettings) -> dict[str, float]:
    spawned = time.monotonic()
    command = (sys.executable, "-m", "tympan.bench.cold", str(spawned), msgspec.json.encode(settings).decode())
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - spawned
        _, complaints = process.communicate()
    if not line:
        last = complaints.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise EngineError(f"the process ended without a word: {last[0]}")
    stages = msgspec.json.decode(line, type=dict[str, float])
    return {stage: round(value, 3) for stage, value in {**stages, TOTAL: seconds}.items()}


def table(report: StartReport) -> str:
    """The report for people."""
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

"""Workloads of the simulator: when streams arrive and how long they last, from a CSV file or synthetic."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tympan.errors import ConfigError

MAX_STREAMS: Final = 100_000
DAY_SECONDS: Final = 86_400.0
COLUMNS: Final = ("arrival", "duration")

# The synthetic day: relative numbers of streams per hour, of a working day with a dip at noon, and their durations.
HOURLY: Final = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 17, 14, 16, 18, 18, 16, 12, 8, 6, 4, 3, 2, 1)
MEDIAN_SECONDS: Final = 180.0
LOG_DEVIATION: Final = 0.8  # standard deviation of a duration's logarithm
LONGEST_SECONDS: Final = 7200.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals (ascending) and durations (above zero) of streams in seconds, float64 `[streams]`."""

    name: str
    arrivals: NDArray[np.float64]
    durations: NDArray[np.float64]

    @property
    def peak(self) -> int:
        """The largest number of streams at once if none has to wait; a stream that ends makes room at that moment."""
        times = np.concatenate((self.arrivals + self.durations, self.arrivals))
        changes = np.concatenate((-np.ones(len(self.arrivals)), np.ones(len(self.arrivals))))
        return int(changes[np.argsort(times, kind="stable")].cumsum().max(initial=0))


def synthetic_day(streams: int, seed: int = 0) -> Workload:
    """Return ``streams`` streams, distributed over a working day.

    Raises:
        ConfigError: There are more streams than the simulator supports.
    """
    _check_length(streams, "--streams")
    random = np.random.default_rng(seed)
    cumulative = np.concatenate(([0.0], np.cumsum(HOURLY))) / sum(HOURLY)
    hours = np.interp(random.random(streams), cumulative, np.arange(len(HOURLY) + 1))
    durations = np.exp(np.log(MEDIAN_SECONDS) + LOG_DEVIATION * random.standard_normal(streams))
    name = f"synthetic day, seed {seed}"
    return Workload(name, np.sort(hours) * DAY_SECONDS / len(HOURLY), np.minimum(durations, LONGEST_SECONDS))


def read_workload(file: Path) -> Workload:
    """Read a CSV file with the columns `arrival` and `duration` in seconds, in any order of rows.

    Raises:
        ConfigError: The file cannot be read or a line is invalid; the message contains the line number.
    """
    rows = []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise ConfigError(f"{file} must have the columns {' and '.join(COLUMNS)}, in seconds")
            for row in reader:
                rows.append(_numbers(row, f"line {reader.line_num} of {file}"))
                if len(rows) > MAX_STREAMS:
                    break
    except OSError as error:
        raise ConfigError(f"cannot read the trace {file}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} is not CSV: {error}") from None
    _check_length(len(rows), str(file))
    values = np.array(sorted(rows), dtype=np.float64)
    return Workload(str(file), values[:, 0], values[:, 1])


def _numbers(row: dict[str, str | None], where: str) -> tuple[float, float]:
    try:
        arrival, duration = (float(row[column] or "") for column in COLUMNS)
    except ValueError:
        raise ConfigError(f"{where} must have a number for each of {' and '.join(COLUMNS)}") from None
    if not (0 <= arrival < np.inf and 0 < duration < np.inf):
        raise ConfigError(f"{where}: an arrival must not be negative, and a duration must be above zero")
    return arrival, duration


def _check_length(streams: int, source: str) -> None:
    if not 0 < streams <= MAX_STREAMS:
        raise ConfigError(f"{source}: the simulation takes 1 to {MAX_STREAMS:,} streams")

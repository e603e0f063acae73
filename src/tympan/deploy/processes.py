"""The processes and CPU cores that a number of streams on one GPU needs.

Measured on machine C of `docs/benchmarks.md` (`benchmarks/front_cpu.py`, `benchmarks/step_overhead.py`), whose cores
are slower than those of most servers with GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

FRONT_MS: Final = 1.3  # CPU time of the fronts for a second of a stream
ENGINE_MS: Final = 0.5  # of the engine process: its thread, 20 µs for each frame, and the frames' way to it
BUSY_SHARE: Final = 0.7  # share of a core that a process may use; above it messages wait for each other


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a server with one GPU.

    Attributes:
        fronts: Front processes, the value of `--fronts`.
        engine_processes: Engine processes, one for the GPU.
        cores: CPU cores that they use.
    """

    fronts: int
    engine_processes: int
    cores: float


def processes_for(streams: int) -> Processes:
    """Return the processes for a number of streams."""
    fronts = ceil(streams * FRONT_MS / 1000 / BUSY_SHARE)
    return Processes(max(1, fronts), 1, round(streams * (FRONT_MS + ENGINE_MS) / 1000 / BUSY_SHARE, 1))


def streams_of(cores: float) -> int:
    """Return the number of streams that so many CPU cores serve, whatever the GPU carries."""
    return int(cores * BUSY_SHARE * 1000 / (FRONT_MS + ENGINE_MS))

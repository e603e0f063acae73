"""The processor of this machine, to which stored measurements belong."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from tympan.models.cpu.threads import thread_count

_CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def cpu_key() -> dict[str, object]:
    """Return what step times on a CPU depend on, apart from the model."""
    return {"cpu": processor(), "cores": os.cpu_count(), "threads": thread_count()}

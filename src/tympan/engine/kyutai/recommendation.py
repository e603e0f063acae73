"""The data type to use on this machine's CPU, from the step times that `tympan bench engine` measured here."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tympan.config import cache_folder
from tympan.engine.kyutai.machine import cpu_key
from tympan.models.config import ModelConfig
from tympan.version import version

logger = logging.getLogger(__name__)

MEASURED_TYPES = ("int8", "int4")  # most precise first
FRAME_MS = 80.0


class StepTimes(msgspec.Struct, frozen=True):
    """The 99th percentile of one live stream's step at full context, in milliseconds, by data type."""

    p99_ms: dict[str, float]

    @property
    def recommended(self) -> str:
        """The most precise type that runs in real time, or else the fastest."""
        fast_enough = [kind for kind in MEASURED_TYPES if self.p99_ms.get(kind, FRAME_MS + 1) <= FRAME_MS]
        return fast_enough[0] if fast_enough else min(self.p99_ms, key=lambda kind: self.p99_ms[kind])

    def __str__(self) -> str:
        times = ", ".join(f"{kind} {ms:.0f} ms" for kind, ms in self.p99_ms.items())
        return f"--dtype {self.recommended} is recommended (99th percentile of a step: {times}; a frame is 80 ms)"


def store(config: ModelConfig, p99_ms: Mapping[str, float]) -> StepTimes:
    """Store what was measured for a model's architecture, and return it."""
    measured = StepTimes(dict(p99_ms))
    file = _file(config)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.encode(measured))
    except OSError as error:
        logger.warning("the recommendation cannot be written to %s: %s", file, error.strerror)
    return measured


def stored(config: ModelConfig) -> StepTimes | None:
    """Return what was measured on this machine, or None."""
    try:
        return msgspec.json.decode(_file(config).read_bytes(), type=StepTimes)
    except (OSError, msgspec.MsgspecError):
        return None


def _file(config: ModelConfig) -> Path:
    key = json.dumps([repr(config), cpu_key(), version()])
    return cache_folder() / "data-types" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

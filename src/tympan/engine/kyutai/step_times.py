"""Step times of earlier starts, in a file of the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tympan.config import cache_folder

logger = logging.getLogger(__name__)


class _Stored(msgspec.Struct):
    key: dict[str, object]
    step_seconds: dict[int, float]


class StepTimes:
    """Seconds of a step, by its number of rows, measured by this start or by an earlier one with the same `key`.

    A file that cannot be read or written only costs the time to measure again.

    Args:
        key: What the times depend on.
        folder: Folder of the file; by default one in the cache folder.

    Attributes:
        seconds: The times that are known.
    """

    def __init__(self, key: Mapping[str, object], folder: Path | None = None) -> None:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._key = dict(key)
        self._file = (folder or cache_folder() / "step-times") / f"{name}.json"
        self.seconds: dict[int, float] = {}
        try:
            stored = msgspec.json.decode(self._file.read_bytes(), type=_Stored)
        except (OSError, ValueError, msgspec.MsgspecError):
            return
        if stored.key == self._key:
            self.seconds = stored.step_seconds

    def measured_by(self, measure: Callable[[int], float]) -> Callable[[int], float]:
        """Return a function of the number of rows that returns the known time, or calls `measure` and stores it."""

        def step_seconds(rows: int) -> float:
            if rows not in self.seconds:
                self.seconds[rows] = measure(rows)
                self._write()
            return self.seconds[rows]

        return step_seconds

    def _write(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._file.with_suffix(".new")
            temporary.write_bytes(msgspec.json.encode(_Stored(self._key, self.seconds)))
            temporary.replace(self._file)
        except OSError as error:
            logger.warning("step times cannot be written to %s: %s", self._file, error.strerror)

"""How many streams a machine carries: measured at full context, at start or in an earlier start, never guessed."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tympan.engine.base import EngineInfo
from tympan.engine.batching.scheduler import Row, Slot
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner

logger = logging.getLogger(__name__)

HEADROOM = 0.8  # of a frame's time; the rest is for jitter and flushes
WARM_UP_STEPS = 2
MEASURED_STEPS = 4
OLD_SECONDS = 3600.0  # the age of a stream whose rings have long been full
_FINEST = 16  # streams; above, the answer is looked for between powers of two


def streams_in_real_time(
    step_seconds: Callable[[int], float], most: int, frame_seconds: float = 0.08
) -> tuple[int, float]:
    """The most rows, up to `most`, whose step leaves headroom; at least 1. And that step's time.

    A power of two, `most`, or, above `_FINEST`, found between powers of two.
    """
    limit = HEADROOM * frame_seconds
    rows, seconds = 1, step_seconds(1)
    too_many: int | None = None
    while too_many is None and rows < most:
        next_rows = min(rows * 2, most)
        next_seconds = step_seconds(next_rows)
        if next_seconds > limit:
            too_many = next_rows
        else:
            rows, seconds = next_rows, next_seconds
    while too_many is not None and too_many - rows > max(_FINEST, rows // 16) and seconds <= limit:
        middle = (rows + too_many) // 2
        middle_seconds = step_seconds(middle)
        if middle_seconds > limit:
            too_many = middle
        else:
            rows, seconds = middle, middle_seconds
    return rows, seconds


def full_context_step_seconds(model: LoadedModel, info: EngineInfo, rows: int) -> float:
    """Median time of a step of `rows` streams, each as if it had run for an hour."""
    return old_step_seconds(KyutaiRunner(model, info, rows), rows)


def old_step_seconds(runner: KyutaiRunner, rows: int) -> float:
    """The same on a runner that is not serving yet."""
    batch = full_context_rows(runner, rows)
    times = []
    for _ in range(WARM_UP_STEPS + MEASURED_STEPS):
        start = time.perf_counter()
        result = runner.launch(batch)
        if not isinstance(result, StepResult):
            result.wait()
        times.append(time.perf_counter() - start)
    runner.begin = 0
    return statistics.median(times[WARM_UP_STEPS:])


def full_context_rows(runner: KyutaiRunner, count: int, seed: int = 0) -> list[Row]:
    """Rows of noise for the runner's first `count` slots, in which streams begin an hour old in every step."""
    noise = np.random.default_rng(seed).standard_normal((count, runner.info.frame_samples)).astype(np.float32) * 0.1
    runner.begin = int(OLD_SECONDS / runner.info.frame_seconds)
    return [Row(Slot(index, None), noise[index], fresh=True) for index in range(count)]


def remembered(folder: Path, key: Mapping[str, object], step_seconds: Callable[[int], float]) -> Callable[[int], float]:
    """`step_seconds`, but with what an earlier start with the same `key` measured, kept in a file in `folder`.

    A file that cannot be read or written costs the time to measure, nothing else.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = folder / f"{name}.json"
    known = _read_times(file, key)

    def lookup(rows: int) -> float:
        if rows not in known:
            known[rows] = step_seconds(rows)
            _write_times(file, key, known)
        return known[rows]

    if known:
        logger.info("step times are those measured before: %s", file)
    return lookup


def _read_times(file: Path, key: Mapping[str, object]) -> dict[int, float]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["key"] == dict(key):
            return {int(rows): float(seconds) for rows, seconds in stored["step_seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


def _write_times(file: Path, key: Mapping[str, object], times: Mapping[int, float]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps({"key": dict(key), "step_seconds": times}), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        logger.warning("step times cannot be kept in %s: %s", file, error.strerror)

"""How many streams a machine carries: measured at start, at full context, never guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from tympan.engine.base import EngineInfo
from tympan.engine.runner import KyutaiRunner, LoadedModel
from tympan.engine.scheduler import Row, Slot

HEADROOM = 0.8  # of a frame's time; the rest is for jitter and flushes
WARM_UP_STEPS = 2
MEASURED_STEPS = 4


def streams_in_real_time(
    step_seconds: Callable[[int], float], most: int, frame_seconds: float = 0.08
) -> tuple[int, float]:
    """The largest power of two of rows, up to `most`, whose step leaves headroom; at least 1. And that step's time."""
    rows, seconds = 1, step_seconds(1)
    while rows * 2 <= most:
        next_seconds = step_seconds(rows * 2)
        if next_seconds > HEADROOM * frame_seconds:
            break
        rows, seconds = rows * 2, next_seconds
    return rows, seconds


def full_context_step_seconds(model: LoadedModel, info: EngineInfo, rows: int) -> float:
    """Median time of a step of `rows` streams, each as if it had run for an hour."""
    runner = KyutaiRunner(model, info, rows)
    batch = full_context_rows(runner, rows)
    times = []
    for _ in range(WARM_UP_STEPS + MEASURED_STEPS):
        start = time.perf_counter()
        runner.step(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP_STEPS:])


def full_context_rows(runner: KyutaiRunner, count: int, seed: int = 0) -> list[Row]:
    """Rows of noise for the runner's first `count` slots, whose rings it makes full."""
    noise = np.random.default_rng(seed).standard_normal((count, runner.info.frame_samples)).astype(np.float32) * 0.1
    runner.pretend_seconds(3600.0)
    return [Row(Slot(index, None), noise[index], fresh=False) for index in range(count)]

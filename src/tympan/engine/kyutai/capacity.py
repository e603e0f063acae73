"""Number of streams that a device carries: those whose state fits into its memory, and those in real time.

Step times are measured at full context, in this start or in an earlier one.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import islice

import numpy as np
import torch

from tympan.engine.base import EngineInfo
from tympan.engine.batching.buckets import bucket_sizes
from tympan.engine.batching.scheduler import KEPT_FRAMES, Row, Slot
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.graphs import CudaDevice
from tympan.engine.kyutai.machine import cpu_key
from tympan.engine.kyutai.placement import Placement
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.engine.kyutai.step_times import StepTimes
from tympan.errors import ConfigError
from tympan.models import kernels
from tympan.models.checkpoints.checkpoint import Checkpoint, describe
from tympan.version import version

logger = logging.getLogger(__name__)

HEADROOM = 0.8  # share of a frame's time that a step may take; the rest is for jitter and flushes
WARM_UP_STEPS = 2
MEASURED_STEPS = 4
FULL_CONTEXT_SECONDS = 3600.0  # age of a stream whose rings have long been full
_FINEST = 16  # streams; larger answers are searched for between powers of two
_SAME_SPEED = 1.3  # largest ratio of the times of two steps of a machine that is as fast as before
_CHECKED_STEPS = 6  # of a start, until one agrees with an earlier start

GIB = 2**30
_FIXED_BYTES = GIB  # libraries, graphs, fragmentation
_ROW_BYTES = 2**20  # most memory per row that a step uses at once
_EARLY_ROW_BYTES = 6 * 2**20  # the same in the codec's first convolutions
_EARLY_ROWS = 256  # most rows that run through those at once


def stream_bytes(checkpoint: Checkpoint, placement: Placement) -> int:
    """Return the bytes that the state of one stream takes."""
    code_bytes = KEPT_FRAMES * checkpoint.config.lm.codebooks * 2
    return describe(checkpoint, dtype=placement.cache).stream_bytes + code_bytes


def streams_that_fit(free_bytes: int, stream_bytes: int) -> int:
    """Return how many streams fit into `free_bytes`, with a step of all of them and a slot for padding rows."""
    left = free_bytes - _FIXED_BYTES - stream_bytes
    few = left // (stream_bytes + _ROW_BYTES + _EARLY_ROW_BYTES)
    if few <= _EARLY_ROWS:
        return max(0, few)
    return (left - _EARLY_ROWS * _EARLY_ROW_BYTES) // (stream_bytes + _ROW_BYTES)


def allocate(
    model: LoadedModel, info: EngineInfo, stream_bytes: int, slots: int | None, most_streams: int | None = None
) -> KyutaiRunner:
    """Return a runner on a GPU with `slots`, or with as many as fit, up to `most_streams`.

    Raises:
        ConfigError: The slots do not fit; the message says how many do.
    """
    torch.cuda.empty_cache()  # temporary memory of loading
    free, _ = torch.cuda.mem_get_info(model.device)
    # Without kernels a step copies the rings of its rows, one layer at a time.
    fit = streams_that_fit(free, stream_bytes if kernels.usable(model.device) else stream_bytes + stream_bytes // 4)
    if slots is None and most_streams is not None:
        fit = min(fit, most_streams)
    slots = slots_for(slots, fit, info.device, stream_bytes)
    try:
        return KyutaiRunner(model, info, slots, device=CudaDevice())
    except torch.OutOfMemoryError:
        raise _too_many(slots, slots * 9 // 10, info.device, stream_bytes) from None


def slots_for(slots: int | None, fit: int, device: str, stream_bytes: int) -> int:
    """Return the number of slots to allocate, by default all that fit. Raise `ConfigError` if they do not fit."""
    if fit < 1:
        raise ConfigError(f"{device} has no room for even one stream beside the model: it needs {_mib(stream_bytes)}")
    if slots is not None and slots > fit:
        raise _too_many(slots, fit, device, stream_bytes)
    return fit if slots is None else slots


def _too_many(slots: int, fit: int, device: str, stream_bytes: int) -> ConfigError:
    return ConfigError(
        f"{slots} streams of {_mib(stream_bytes)} do not fit into the memory of {device}; use --max-streams {fit}"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def limit_to_real_time(runner: KyutaiRunner, checkpoint: Checkpoint, placement: Placement) -> None:
    """Reduce the slots of a runner on a GPU to those that it carries in real time."""
    key = {
        "gpu": runner.info.device,
        "model": checkpoint.name,
        "architecture": repr(checkpoint.config),
        "weights": placement.kind,
        "cache": placement.cache_name,
        "slots": runner.slots,
        "buckets": bucket_sizes(runner.slots),
        "tympan": version(),
        "torch": str(torch.__version__),
    }
    times = StepTimes(key)
    runner.slots = _capacity(times.measured_by(partial(full_context_step_seconds, runner)), runner.slots, runner.info)


def calibrated_runner(model: LoadedModel, info: EngineInfo, architecture: str, most: int) -> KyutaiRunner:
    """Return a runner with as many slots, from 1 to `most`, as a CPU carries in real time.

    Other programs and saving of energy change a CPU's speed. Step times of an earlier start are used only if one of the
    first steps of this start agrees with them.
    """
    key = cpu_key() | {
        "architecture": architecture,
        "device": info.device,
        "engine": info.engine,
        "cache": str(model.cache_dtype),
        "tympan": version(),
        "torch": str(torch.__version__),
        "onnxruntime": _onnxruntime_version(),
    }
    times = StepTimes(key)
    step_seconds = times.measured_by(
        lambda rows: full_context_step_seconds(KyutaiRunner(model, info, rows), rows, MEASURED_STEPS)
    )
    runner = None
    if expected := times.seconds.get(1):
        runner = KyutaiRunner(model, info, streams_in_real_time(step_seconds, most)[0])
        if not _is_as_fast(full_context_steps(runner, 1), expected):
            runner = None
            times.seconds.clear()
    streams = _capacity(step_seconds, most, info)
    return runner or KyutaiRunner(model, info, streams)


def _is_as_fast(steps: Iterator[float], expected: float) -> bool:
    """Return whether one of the first steps took about the expected seconds."""
    ratios = (seconds / expected for seconds in islice(steps, _CHECKED_STEPS))
    return any(1 / _SAME_SPEED <= ratio <= _SAME_SPEED for ratio in ratios)


def _onnxruntime_version() -> str:
    try:
        return package_version("onnxruntime")
    except PackageNotFoundError:  # PyTorch computes everything
        return ""


def warm_up(runner: KyutaiRunner) -> None:
    """Run a step, which creates what a CPU creates in its first step."""
    runner.launch(full_context_rows(runner, 1))
    runner.reset_counters()


def _capacity(step_seconds: Callable[[int], float], most: int, info: EngineInfo) -> int:
    streams, seconds = streams_in_real_time(step_seconds, most)
    logger.info("a step of %d streams takes %.0f ms of its 80 ms", streams, 1000 * seconds)
    if seconds > info.frame_seconds:
        logger.warning("slower than real time: one stream takes %.0f ms per 80 ms of audio", 1000 * seconds)
    return streams


def streams_in_real_time(
    step_seconds: Callable[[int], float], most: int, frame_seconds: float = 0.08
) -> tuple[int, float]:
    """Return the most rows whose step leaves headroom, from 1 to `most`, and the seconds of that step.

    The number of rows is a power of two or `most`; above `_FINEST` rows it is searched for between powers of two.
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


def full_context_step_seconds(runner: KyutaiRunner, rows: int, steps: int = MEASURED_STEPS) -> float:
    """Return the median seconds of steps of `rows` streams at full context. The runner must not be serving yet."""
    return statistics.median(islice(full_context_steps(runner, rows), WARM_UP_STEPS, WARM_UP_STEPS + steps))


def full_context_steps(runner: KyutaiRunner, rows: int) -> Iterator[float]:
    """Run steps of `rows` streams at full context and yield the seconds of each; the first ones warm up."""
    batch = full_context_rows(runner, rows)
    try:
        while True:
            start = time.perf_counter()
            result = runner.launch(batch)
            if not isinstance(result, StepResult):
                result.wait()
            yield time.perf_counter() - start
    finally:
        runner.reset_counters()


def full_context_rows(runner: KyutaiRunner, count: int, seed: int = 0) -> list[Row]:
    """Return rows of noise for the first `count` slots, and make the runner start streams at an age of one hour."""
    noise = np.random.default_rng(seed).standard_normal((count, runner.info.frame_samples)).astype(np.float32) * 0.1
    runner.start_frame = int(FULL_CONTEXT_SECONDS / runner.info.frame_seconds)
    return [Row(Slot(index, None), noise[index], fresh=True) for index in range(count)]

"""The number of live streams that an engine sustains: successive loads on one runner, every stream at full context."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from conditions import conditions

from sustained.attention import attention_rate
from sustained.live import LiveFigures, LiveLoad, LiveRun
from sustained.moshi_loop import moshi_streams
from tympan.bench.measure import copy_rate
from tympan.config import ModelSettings
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.kyutai.capacity import FULL_CONTEXT_SECONDS, allocate, full_context_step_seconds, stream_bytes
from tympan.engine.kyutai.loader import describe_engine, load_model
from tympan.engine.kyutai.placement import FLOATS, Placement, place
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.models import kernels
from tympan.models.checkpoints.checkpoint import Checkpoint
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.layers.attention import FP8, Ring

ATTENTION_ROWS = 512
BATCH1_ROUNDS = 10
_NOISE_SLOTS = 8  # filled at once: little memory may be left
_NOISE_FP8 = 50.0  # where values lie in the range of 8-bit floats, about
IDLE = LiveLoad(streams=1, seconds=6.0, flush_every=0.1, warm_up=1.0)

Run = dict[str, object]
"""Figures of one run by name, flat."""


@dataclass(frozen=True)
class Prepared:
    """A runner whose streams begin an hour old, and the figures that all of its loads have in common."""

    runner: KyutaiRunner
    common: Run


async def measure_sustained(
    settings: ModelSettings, streams: Sequence[int], seconds: float, idle: LiveLoad = IDLE
) -> list[Run]:
    """Return one run for each number of ``streams``, ``seconds`` long, each with the figures that all have in common.

    Raises:
        ModelError: As the engine does.
        ConfigError: As the engine does.
    """
    prepared = prepare(settings, max(streams))
    engine = BatchedEngine(lambda: prepared.runner)
    await engine.start()
    try:
        idle_figures = await LiveRun(engine, idle).run()
        runs = [await run_load(engine, LiveLoad(streams=count, seconds=seconds)) for count in streams]
    finally:
        await engine.stop()
    return [{**prepared.common, **idle_flush(idle_figures), **run} for run in runs]


def prepare(settings: ModelSettings, slots: int | None) -> Prepared:
    """Load a model and take the measurements that need no live streams.

    Args:
        settings: The model, device and data types.
        slots: Streams at once, or None for as many as fit into a GPU's memory.

    Raises:
        ModelError: As the engine does.
        ConfigError: As the engine does.
    """
    checkpoint, placement = open_checkpoint(settings.model), place(settings)
    copied = copy_rate(placement.device)  # first: it needs memory
    start = time.perf_counter()
    runner, bytes_measured = load(checkpoint, placement, settings, slots)
    common = {
        **conditions(placement.device),
        **_of_the_model(checkpoint, placement, runner),
        "bytes_per_stream_measured": bytes_measured,
        "start_seconds": round(time.perf_counter() - start, 1),
        **_of_one_step(runner, placement, copied),
    }
    return Prepared(runner, common)


async def run_load(engine: BatchedEngine, load: LiveLoad) -> Run:
    """Run one load on an engine that is started, and return its figures."""
    measured = asdict(await LiveRun(engine, load).run())
    for name in ("flush_ms_p50", "flush_ms_p99"):
        measured[f"{name}_loaded"] = measured.pop(name)
    return {**measured, "life_seconds": load.life, "flush_every_seconds": load.flush_every}


def idle_flush(figures: LiveFigures) -> Run:
    """Return the flush figures of a stream that is alone."""
    return {"flush_ms_p50_idle": figures.flush_ms_p50, "flush_ms_p99_idle": figures.flush_ms_p99}


def beside_moshi(settings: ModelSettings, runs: Sequence[Run]) -> list[Run]:
    """Return the runs, each with the streams that the moshi package's loop carries with the same model and device.

    Raises:
        ModuleNotFoundError: The package is missing.
    """
    gc.collect()
    torch.cuda.empty_cache()  # where there is no GPU it does nothing
    checkpoint, placement = open_checkpoint(settings.model), place(settings)
    lm = checkpoint.lm(device=placement.device, dtype=FLOATS.get(placement.kind, torch.bfloat16))
    streams, step_ms = moshi_streams(lm, placement.device, most=2 * max(1, sustained(runs)))
    return [{**run, "moshi_streams": streams, "moshi_step_ms_p99": step_ms} for run in runs]


def load(
    checkpoint: Checkpoint, placement: Placement, settings: ModelSettings, slots: int | None
) -> tuple[KyutaiRunner, int | None]:
    """Return a runner, and on a GPU the bytes that its slots take, graphs included, divided by their number.

    slots: None for as many as fit into a GPU's memory, and for 1 on a CPU.
    """
    model, info = load_model(checkpoint, placement, settings), describe_engine(checkpoint, placement)
    if placement.device.type != "cuda":
        return KyutaiRunner(model, info, slots or 1), None
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(placement.device)
    runner = allocate(model, info, stream_bytes(checkpoint, placement), slots)
    torch.cuda.synchronize(placement.device)
    left, _ = torch.cuda.mem_get_info(placement.device)
    return runner, (free - left) // runner.slots


def fill_with_noise(ring: Ring) -> None:
    """Write random keys and values: zeros, which take a GPU less power to read, are not what streams have."""
    generator = torch.Generator(ring.keys.device).manual_seed(0)
    with torch.inference_mode():
        for cache in (ring.keys, ring.values):
            for layer in cache:
                for some in layer.split(_NOISE_SLOTS):
                    noise = torch.randn(some.shape, device=some.device, generator=generator)
                    some.copy_(noise.mul_(_NOISE_FP8 if some.dtype == FP8 else 1.0))


def sustained(runs: Sequence[Run]) -> int:
    """Return the largest number of streams of a run that kept up; 0 if none did."""
    return max((int(str(run["streams"])) for run in runs if run["kept_up"]), default=0)


def _of_the_model(checkpoint: Checkpoint, placement: Placement, runner: KyutaiRunner) -> Run:
    config = checkpoint.config
    return {
        "model": checkpoint.name,
        "weights_dtype": placement.kind,
        "kv_dtype": placement.cache_name,
        "context_frames": config.lm.transformer.context,
        "codebooks": runner.program.model.lm.codebooks,
        "slots": runner.slots,
        "record_seconds": round(runner.record_seconds, 1),
        "bytes_per_stream": stream_bytes(checkpoint, placement),
    }


def _of_one_step(runner: KyutaiRunner, placement: Placement, copied: float) -> Run:
    """Time one row and all rows, and on a GPU attention; afterwards, streams of the runner begin an hour old."""
    device = placement.device
    figures: Run = {
        "batch1_step_ms": round(1000 * median(full_context_step_seconds(runner, 1) for _ in range(BATCH1_ROUNDS)), 3),
        "full_step_ms": round(1000 * full_context_step_seconds(runner, runner.slots), 3),
        "copy_gbps": round(copied / 1e9, 1),
        "memory_bytes": torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
        "attention_rows": None,
        "attention_gbps": None,
        "attention_copy_rate_share": None,
    }
    if device.type == "cuda" and kernels.usable(device):
        fill_with_noise(runner.program.ring)
        rows = min(ATTENTION_ROWS, runner.slots)
        dtype = runner.program.model.lm.embedding.dtype
        rate = attention_rate(runner.program.ring, rows, dtype)
        figures |= {
            "attention_rows": rows,
            "attention_gbps": round(rate / 1e9, 1),
            "attention_copy_rate_share": round(rate / copied, 3),
        }
    runner.start_frame = int(FULL_CONTEXT_SECONDS / runner.info.frame_seconds)
    return figures


def table(runs: Sequence[Run]) -> str:
    """Return the runs as a table for a terminal."""
    first = runs[0]
    columns = {
        "streams": "streams",
        "rows p50": "rows_p50",
        "step p50": "step_ms_p50",
        "p95": "step_ms_p95",
        "p99": "step_ms_p99",
        "token p50": "frame_to_token_ms_p50",
        "token p99": "frame_to_token_ms_p99",
        "flush p99": "flush_ms_p99_loaded",
        "starts": "starts",
    }
    rows = ["".join(f"{_shown(run[name]):>11}" for name in columns.values()) for run in runs]
    return "\n".join(
        [
            f"{first['model']}, weights {first['weights_dtype']}, cache {first['kv_dtype']}, torch {first['torch']}",
            f"{first['gpu'] or first['cpu']}: one row takes {first['batch1_step_ms']} ms a step, a flush of a stream "
            f"that is alone {_shown(first['flush_ms_p99_idle'])} ms (p99)",
            "".join(f"{title:>11}" for title in columns),
            *(row + ("" if run["kept_up"] else "  too many") for row, run in zip(rows, runs, strict=True)),
            f"sustained: {sustained(runs)} streams",
        ]
    )


def _shown(value: object) -> str:
    return "-" if value is None else str(value)

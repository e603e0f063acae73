"""Durations of a step's codec and language model for some batch sizes, every stream at full context.

Every row is a stream that has run for an hour, so the rings are full and attention reads the whole window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from tympan.bench.measure import copy_rate, percentile, synchronize
from tympan.config import ModelSettings
from tympan.engine.kyutai.capacity import WARM_UP_STEPS, full_context_rows
from tympan.engine.kyutai.graphs import CudaDevice, Device
from tympan.engine.kyutai.loader import describe_engine, load_model
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.program import StepProgram
from tympan.engine.kyutai.recommendation import MEASURED_TYPES, store
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.models.checkpoints.checkpoint import describe
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu.threads import give_threads_to_pytorch, thread_count

STEPS = 40


@dataclass(frozen=True)
class EngineRow:
    """Figures of one batch size; times in milliseconds, `lm_gbps` in 1e9 bytes per second.

    `realtime_streams` is how many streams batches of this size transcribe, one after the other, within a frame's 80 ms
    at the 99th percentile. `copy_share` is `lm_gbps` over the rate of a memory copy.
    """

    streams: int
    codec_ms_p50: float
    lm_ms_p50: float
    step_ms_p50: float
    step_ms_p99: float
    realtime_streams: int
    bytes_per_stream: int
    lm_gbps: float
    copy_share: float


@dataclass(frozen=True)
class EngineReport:
    """All figures of one run, and its conditions."""

    model: str
    device: str
    dtype: str
    torch: str
    threads: int
    copy_gbps: float
    weight_bytes: int
    rows: Sequence[EngineRow]


def measure_engine(
    settings: ModelSettings, streams: Sequence[int], steps: int = STEPS, recorder: Device | None = None
) -> EngineReport:
    """Measure one batch for each number of ``streams``.

    Args:
        settings: The model, its device and its data types.
        streams: Batch sizes.
        steps: Number of steps to time.
        recorder: Records and replays each half of a step; by default a CUDA graph on a GPU, and None on a CPU.

    Raises:
        ModelError: The model cannot be found or loaded.
        ConfigError: The settings do not fit the machine.
    """
    checkpoint = open_checkpoint(settings.model)
    placement = place(settings)
    if recorder is None and placement.device.type == "cuda":
        recorder = CudaDevice()
    give_threads_to_pytorch()  # which a model that was measured before may have taken away
    copy_gbps = copy_rate(placement.device) / 1e9
    model = load_model(checkpoint, placement, settings)
    info = describe_engine(checkpoint, placement)
    described = describe(checkpoint, dtype=model.cache_dtype)
    linears = stored_bytes(model.lm) - model.lm.embedding.nbytes  # a step reads only a few rows of the embeddings
    rows = []
    for count in streams:
        codec, lm = _time_steps(KyutaiRunner(model, info, count), count, steps, recorder)
        total = [first + second for first, second in zip(codec, lm, strict=True)]
        moved = linears + count * described.lm_stream_bytes
        rows.append(
            EngineRow(
                streams=count,
                codec_ms_p50=_ms(median(codec)),
                lm_ms_p50=_ms(median(lm)),
                step_ms_p50=_ms(median(total)),
                step_ms_p99=_ms(percentile(total, 99)),
                realtime_streams=int(count * info.frame_seconds / percentile(total, 99)),
                bytes_per_stream=described.stream_bytes,
                lm_gbps=round(moved / median(lm) / 1e9, 2),
                copy_share=round(moved / median(lm) / 1e9 / copy_gbps, 3),
            )
        )
    return EngineReport(
        model=checkpoint.name,
        device=info.device,
        dtype=placement.kind,
        torch=torch.__version__,
        threads=thread_count(),
        copy_gbps=round(copy_gbps, 2),
        weight_bytes=stored_bytes(model.lm) + stored_bytes(model.mimi),
        rows=rows,
    )


def measure_data_types(settings: ModelSettings, streams: Sequence[int], steps: int) -> tuple[list[EngineReport], str]:
    """Measure every data type that suits a CPU, one after the other.

    Returns:
        A report for each data type, and the recommended one, which is stored for `tympan doctor` and the next start.
    """
    counts = [1, *(count for count in streams if count > 1)]
    reports = [measure_engine(replace(settings, dtype=kind), counts, steps) for kind in MEASURED_TYPES]
    p99_ms = {report.dtype: report.rows[0].step_ms_p99 for report in reports}
    return reports, str(store(open_checkpoint(settings.model).config, p99_ms))


def _time_steps(
    runner: KyutaiRunner, count: int, steps: int, recorder: Device | None
) -> tuple[list[float], list[float]]:
    """Return the seconds of the codec and of the language model in each of ``steps`` steps."""
    device = runner.program.model.device
    batch = full_context_rows(runner, count)
    runner.fill(batch)
    encode, predict = _halves(runner.program, count)
    if recorder is not None:
        encode = recorder.record(encode)
        encode()  # recording computes nothing, and recording `predict` runs it on these codes first
        predict = recorder.record(predict)
    codec, lm = [], []
    for _ in range(WARM_UP_STEPS + steps):
        start = time.perf_counter()
        runner.fill(batch)
        encode()
        synchronize(device)
        middle = time.perf_counter()
        predict()
        runner.program.results[:count].tolist()
        codec.append(middle - start)
        lm.append(time.perf_counter() - middle)
    return codec[WARM_UP_STEPS:], lm[WARM_UP_STEPS:]


def _halves(program: StepProgram, rows: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the two halves of a step as functions without arguments, which a device can record."""
    encoded: list[Tensor] = []

    def encode() -> None:
        encoded[:] = program.encode(rows)

    def predict() -> None:
        program.predict(*encoded)

    return encode, predict


def stored_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's weights; those that are no parameters count in the form in which they are held."""
    packed = sum(getattr(part, "size_bytes", 0) for part in module.modules())
    return packed + sum(parameter.nbytes for parameter in module.parameters())


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def table(report: EngineReport) -> str:
    """Return the report as a table for a terminal."""
    lines = [
        f"{report.model} as {report.dtype} on {report.device}, torch {report.torch}, {report.threads} threads",
        f"weights {report.weight_bytes / 1e9:.2f} GB; memory copies run at {report.copy_gbps:.1f} GB/s",
        f"{'streams':>8}{'codec ms':>10}{'LM ms':>9}{'step p50':>10}{'step p99':>10}{'real time':>11}{'LM GB/s':>9}"
        f"{'of copy':>9}",
    ]
    lines += [
        f"{row.streams:>8}{row.codec_ms_p50:>10.1f}{row.lm_ms_p50:>9.1f}{row.step_ms_p50:>10.1f}{row.step_ms_p99:>10.1f}"
        f"{row.realtime_streams:>11}{row.lm_gbps:>9.1f}{row.copy_share:>9.0%}"
        for row in report.rows
    ]
    lines.append(f"memory per stream {report.rows[0].bytes_per_stream / 2**20:.1f} MiB")
    return "\n".join(lines)

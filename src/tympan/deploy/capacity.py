"""The number of streams that a GPU carries: measured, or estimated from its bandwidth and memory.

A step reads the weights once and every stream's cache once, so it takes bytes / (bandwidth * efficiency) seconds. The
efficiency follows from the one published load that states its hardware: Kyutai's server carries 64 streams of the 1B
model on an L40S at three times real time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tympan.deploy.prices import GPUS, Gpu
from tympan.errors import ConfigError

FRAME_SECONDS: Final = 0.08
HEADROOM: Final = 0.8  # share of a frame's time that a step may take, as in the engine's calibration
USABLE_MEMORY: Final = 0.9  # activations, graphs and the driver need the rest


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """Sizes of a model in bytes, with bf16 weights and an f32 codec.

    Attributes:
        name: Size of the model, such as `1b`.
        stored: Weights in memory.
        read_per_step: Weights that a step reads: all but the embeddings, of which it gathers a few rows.
        cache_per_stream: KV cache of a stream in bf16, at full context.
        codec_per_stream: State of the codec for a stream.
    """

    name: str
    stored: int
    read_per_step: int
    cache_per_stream: int
    codec_per_stream: int

    def per_stream(self, kv_dtype: str) -> float:
        return self.cache_per_stream / (2 if kv_dtype == "fp8" else 1) + self.codec_per_stream


CODEC_BYTES: Final = 223_855_744
MODELS: Final = {
    "1b": ModelBytes("1b", 1_978_507_264 + CODEC_BYTES, 1_677_168_640 + CODEC_BYTES, 98_304_000, 8_238_104),
    "2.6b": ModelBytes("2.6b", 5_234_237_440 + CODEC_BYTES, 4_949_282_816 + CODEC_BYTES, 147_456_000, 8_238_104),
}

PUBLISHED_STREAMS: Final = 64
PUBLISHED_STEP_SECONDS: Final = FRAME_SECONDS / 3
_PUBLISHED_BYTES: Final = MODELS["1b"].read_per_step + PUBLISHED_STREAMS * MODELS["1b"].per_stream("bf16")
EFFICIENCY: Final = round(_PUBLISHED_BYTES / GPUS["L40S"].bandwidth / PUBLISHED_STEP_SECONDS, 2)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The streams that one GPU carries at full context.

    Attributes:
        streams: Number of streams.
        basis: `measured`, `estimate`, `given` or `rule of thumb`.
        limit: What limits the number.
        inputs: Sentences from which the number can be derived.
    """

    streams: int
    basis: str
    limit: str
    inputs: tuple[str, ...]


def capacity(gpu: Gpu, model: ModelBytes, kv_dtype: str, runs: Iterable[Run] = ()) -> Capacity:
    """Return the largest load in ``runs`` that kept up on this GPU, or an estimate if there is no such run."""
    matching = [run for run in runs if (run.gpu, run.model, run.kv_dtype) == (gpu.name, model.name, kv_dtype)]
    if not matching:
        return estimate(gpu, model, kv_dtype)
    best = max((run for run in matching if run.kept_up), key=lambda run: run.streams, default=None)
    if best is None:
        tried = min(run.streams for run in matching)
        return Capacity(0, "measured", "step time", (f"no measured load kept up; the smallest was {tried} streams",))
    return Capacity(best.streams, "measured", "step time", (f"{best.file}: step p99 {best.step_ms_p99:g} ms",))


def estimate(gpu: Gpu, model: ModelBytes, kv_dtype: str) -> Capacity:
    """Return the smaller of what the bandwidth allows in a frame's time and what fits into the memory."""
    per_stream = model.per_stream(kv_dtype)
    readable = HEADROOM * FRAME_SECONDS * gpu.bandwidth * EFFICIENCY
    by_bandwidth = int((readable - model.read_per_step) / per_stream)
    by_memory = int((USABLE_MEMORY * gpu.memory_bytes - model.stored) / per_stream)
    streams = max(0, min(by_bandwidth, by_memory))
    inputs = (
        f"bandwidth {gpu.bandwidth / 1e9:g} GB/s and memory {gpu.memory_bytes / 1e9:g} GB (data sheet)",
        f"efficiency {EFFICIENCY:g} (from Kyutai's published {PUBLISHED_STREAMS} streams at 3x real time on an L40S)",
        f"{HEADROOM:.0%} of an 80 ms frame and {USABLE_MEMORY:.0%} of the memory used",
        f"read in every step: {model.read_per_step / 1e9:.2f} GB of weights, {per_stream / 1e6:.1f} MB per stream "
        f"({kv_dtype} cache, full context)",
        f"so {by_bandwidth} streams by bandwidth, {by_memory} by memory",
    )
    return Capacity(streams, "estimate", "bandwidth" if by_bandwidth < by_memory else "memory", inputs)


@dataclass(frozen=True, slots=True)
class Run:
    """One measured load, as `benchmarks/gpu_figures.py` writes it. `kept_up` requires a step within a frame's time."""

    file: str
    gpu: str
    model: str
    kv_dtype: str
    streams: int
    step_ms_p99: float
    kept_up: bool


def read_runs(folder: Path) -> list[Run]:
    """Return the measured loads in a folder, as far as their GPU and model are known.

    A file contains one record (`.json`) or one record per line (`.jsonl`). Other records are ignored.

    Raises:
        ConfigError: A file is not JSON, or lacks a field.
    """
    runs = []
    for file in sorted((*folder.glob("*.json"), *folder.glob("*.jsonl"))):
        try:
            text = file.read_text(encoding="utf-8")
            records = [json.loads(each) for each in (text.splitlines() if file.suffix == ".jsonl" else [text])]
            for record in records:
                content = record.get("values", record) if isinstance(record, dict) else None
                if isinstance(content, dict) and "step_ms_p99" in content and (run := _run(file.name, content)):
                    runs.append(run)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} is not a measured load: {error!r}") from None
    return runs


def _run(file: str, content: dict[str, Any]) -> Run | None:
    gpu = gpu_of_device(str(content["gpu"] or ""))
    size = next((size for size in MODELS if f"{size}-" in f"{content['model']}-"), None)
    if gpu is None or size is None:
        return None
    p99 = float(content["step_ms_p99"])
    kept_up = bool(content.get("kept_up", True)) and p99 <= 1000 * FRAME_SECONDS
    return Run(file, gpu, size, str(content["kv_dtype"]), int(content["streams"]), p99, kept_up)


def gpu_of_device(device: str) -> str | None:
    """Return the name in `GPUS` for a driver's name such as `NVIDIA H100 80GB HBM3`; None if it is unknown."""
    words = set(device.upper().replace("-", " ").replace("_", " ").split())
    return next((name for name in GPUS if set(name.upper().split("-")) <= words), None)

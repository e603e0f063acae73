"""How many streams a GPU carries: measured where somebody measured, else estimated from bandwidth and memory.

A step reads the weights once and every stream's cache once, so its time is bytes over bandwidth, divided by an
efficiency. The efficiency is taken from the one published load that states its hardware: Kyutai's server, 64 streams of
the 1B model on an L40S at three times real time.
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
HEADROOM: Final = 0.8  # of a frame's time, as the engine's own calibration has it
USABLE_MEMORY: Final = 0.9  # the rest is for activations, graphs and the driver


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """What a step must read and what must fit, in bytes; weights as bf16, the codec as f32."""

    name: str
    stored: int
    read_per_step: int  # without the embeddings, of which a step gathers a few rows
    cache_per_stream: int  # as bf16, at full context
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


def _published_efficiency() -> float:
    model = MODELS["1b"]
    moved = model.read_per_step + PUBLISHED_STREAMS * model.per_stream("bf16")
    return moved / GPUS["L40S"].bandwidth / PUBLISHED_STEP_SECONDS


EFFICIENCY: Final = round(_published_efficiency(), 2)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Streams one GPU carries at full context. `basis` is `measured` or `estimate`, `inputs` what it follows from."""

    streams: int
    basis: str
    limit: str
    inputs: tuple[str, ...]


def capacity(gpu: Gpu, model: ModelBytes, kv_dtype: str, runs: Iterable[Run] = ()) -> Capacity:
    """The largest load that kept up in the `runs` on this GPU, model and type of cache; without any, an estimate."""
    ours = [run for run in runs if (run.gpu, run.model, run.kv_dtype) == (gpu.name, model.name, kv_dtype)]
    if not ours:
        return estimate(gpu, model, kv_dtype)
    best = max((run for run in ours if run.kept_up), key=lambda run: run.streams, default=None)
    if best is None:
        tried = min(run.streams for run in ours)
        return Capacity(0, "measured", "step time", (f"no measured load kept up; the smallest was {tried} streams",))
    return Capacity(best.streams, "measured", "step time", (f"{best.file}: step p99 {best.step_ms_p99:g} ms",))


def estimate(gpu: Gpu, model: ModelBytes, kv_dtype: str) -> Capacity:
    """Whichever ends first: the bytes that can be read in a frame's time, or the memory."""
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
    """One measured load, as `benchmarks/gpu_figures.py` writes it."""

    file: str
    gpu: str
    model: str
    kv_dtype: str
    streams: int
    step_ms_p99: float
    kept_up: bool


def read_runs(folder: Path) -> list[Run]:
    """Return the loads in a folder whose GPU and model this table knows.

    They stand in files of JSON lines, one record a line, or in a JSON file of their own; other files are passed over.

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
    """Our name for what the driver calls `NVIDIA H100 80GB HBM3` or `NVIDIA A100-SXM4-40GB`."""
    words = set(device.upper().replace("-", " ").replace("_", " ").split())
    return next((name for name in GPUS if set(name.upper().split("-")) <= words), None)

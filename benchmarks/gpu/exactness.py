"""Comparison of tokens: recorded steps with eager steps, a CPU and other batches; other data types with f32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpu.checks import relative
from gpu.items import Context, Item, Limit, Values, at_least, at_most
from gpu.streams import Followed, differences, follow, follow_alone, follow_in_step, run_rows, schedule
from tympan.bench.measure import percentile
from tympan.config import ModelSettings
from tympan.engine.base import EngineInfo
from tympan.engine.kyutai.capacity import full_context_rows
from tympan.engine.kyutai.graphs import CudaDevice, Device
from tympan.engine.kyutai.loader import describe_engine, load_model, measure_scales, quantize
from tympan.engine.kyutai.placement import place
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.randomized import synthetic_voice
from tympan.models.layers.attention import FP8
from tympan.models.lm import LM

NEAR_TIE = {"f32": 1e-3, "bf16": 5e-2}  # of two logits, by the standard deviation of all: rounding decides
_STEPS, _WARM_UP_STEPS = 50, 10


class HostDevice:
    """A stand-in for a GPU: its recordings run the recorded function again."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        return run

    def record_event(self) -> Callable[[], None]:
        return lambda: None


def recorder(context: Context) -> Device:
    return CudaDevice() if context.cuda else HostDevice()


def loaded(model: str, dtype: str, device: str) -> tuple[LoadedModel, EngineInfo]:
    settings = ModelSettings(model=model, dtype=dtype, device=device)
    checkpoint, placement = open_checkpoint(model), place(settings)
    return load_model(checkpoint, placement, settings), describe_engine(checkpoint, placement)


def comparison(name: str, run: Callable[[], dict[str, Any]], dtype: str) -> Item:
    """Return the item for a comparison in which only near-ties may come out differently."""
    shown = ("streams_differing", "first_place", "gap_there")
    return Item(name, run, {"gap_there": at_most(NEAR_TIE[dtype])}, shown=shown)


def tiny(context: Context) -> Iterator[Item]:
    """Compare the tiny model in f32, with churn."""
    turns = (8, 40) if context.quick else (16, 120)
    yield from compare_batches(context, "random:tiny", *turns)


def exactness(context: Context) -> Iterator[Item]:
    """Compare the measured model in f32, widened from the bf16 of its checkpoint, with churn."""
    yield from compare_batches(context, context.checkpoint, *((3, 12) if context.quick else (6, 40)))


def compare_batches(context: Context, model: str, slots: int, turns: int) -> Iterator[Item]:
    actions, runs = schedule(slots, turns), dict[str, Followed]()
    runners = dict[str, KyutaiRunner]()

    def eager() -> Values:
        there = loaded(model, "f32", context.device)
        # First the one that is recorded, because then the GPU's way to read the ring is chosen for both.
        runners["graphs"] = KyutaiRunner(*there, slots, device=recorder(context))
        runs["eager"] = follow(KyutaiRunner(*there, slots), actions, with_gaps=True)
        return {"streams": len(runs["eager"].tokens), "tokens": sum(map(len, runs["eager"].tokens))}

    def on_cpu() -> dict[str, Any]:
        runs["cpu"] = follow(KyutaiRunner(*loaded(model, "f32", "cpu"), slots), actions)
        return differences(runs["cpu"], runs["eager"])

    def with_graphs() -> dict[str, Any]:
        runs["graphs"] = follow(runners["graphs"], actions)
        return differences(runs["graphs"], runs["eager"])

    def alone() -> dict[str, Any]:
        return differences(follow_alone(runners["graphs"], actions), runs["graphs"], runs["eager"])

    yield Item("eager steps", eager, shown=("streams", "tokens"), setup=True)
    yield comparison("a CPU and eager steps", on_cpu, "f32")
    yield replace(comparison("graphs and eager steps", with_graphs, "f32"), setup=True)
    yield comparison("each stream alone and among others", alone, "f32")


def four_slots(context: Context) -> Iterator[Item]:
    """Compare replayed steps of the measured model with eager ones, in four slots, and time the step of one row."""
    dtype = "bf16" if context.cuda else "f32"
    runners = dict[str, KyutaiRunner]()

    def load() -> Values:
        start = time.monotonic()
        there = loaded(context.checkpoint, dtype, context.device)
        runners["eager"] = KyutaiRunner(*there, 4)
        seconds = time.monotonic() - start
        runners["graphs"] = KyutaiRunner(*there, 4, device=recorder(context))
        return {"load_seconds": round(seconds, 1), "record_seconds": round(runners["graphs"].record_seconds, 1)}

    def replayed() -> dict[str, Any]:
        expected = follow_in_step(runners["eager"], 24, with_gaps=True)
        return differences(follow_in_step(runners["graphs"], 24), expected)

    yield Item("load", load, shown=("load_seconds", "record_seconds"), setup=True)
    yield comparison("replayed and eager steps", replayed, dtype)
    limits = {"step_ms_p50": at_most(4.0)} if context.cuda else {}
    yield Item("one row", lambda: one_row(runners["graphs"]), limits, shown=("step_ms_p50", "step_ms_p99"))


def one_row(runner: KyutaiRunner) -> Values:
    """Time the steps of one row at full context, from launch to result."""
    rows, times = full_context_rows(runner, 1), []
    for _ in range(_WARM_UP_STEPS + _STEPS):
        start = time.perf_counter()
        run_rows(runner, rows)
        times.append(1000 * (time.perf_counter() - start))
    runner.reset_counters()
    measured = times[_WARM_UP_STEPS:]
    return {"step_ms_p50": round(percentile(measured, 50), 3), "step_ms_p99": round(percentile(measured, 99), 3)}


class Agreement:
    """Logits of one stream of synthetic voice, with the same past for every data type."""

    def __init__(self, context: Context, frames: int) -> None:
        self.context, self.frames = context, frames
        self.device = torch.device(context.device)
        self.checkpoint = open_checkpoint(context.checkpoint)

    @torch.inference_mode()
    def start(self) -> Values:
        self.mimi = self.checkpoint.mimi(device=self.device)
        self.lm, self.kind = self.checkpoint.lm(device=self.device, dtype=torch.float32), "f32"
        voice = synthetic_voice(self.frames * 1920, 24_000, torch.Generator().manual_seed(1)).to(self.device)
        state, rows = self.mimi.init_state(1), torch.zeros(1, dtype=torch.int64, device=self.device)
        self.codes = torch.cat([self.mimi.encode(frame, state, rows) for frame in voice.view(self.frames, 1, -1)])
        self.expected = self.logits(torch.float32, None, None)
        self.past = self.expected.argmax(dim=-1)
        self.scales = measure_scales(self.mimi, self.lm, self.device)
        return {
            "frames": self.frames,
            "f32": "the checkpoint's bf16, widened" if self.checkpoint.layout == "kyutai" else "drawn",
        }

    def logits(self, cache: torch.dtype, past: Tensor | None, scales: Tensor | None) -> Tensor:
        """Return the logits of each frame; with ``past``, the token before each step is the one given."""
        lm: LM = self.lm
        state, rows = lm.init_state(1, cache_dtype=cache, scales=scales), torch.zeros_like(self.codes[0, :1])
        logits = []
        for index, frame in enumerate(self.codes):
            logits.append(lm.step(frame[None], state, rows).logits[0])
            if past is not None:
                state.token.copy_(past[index : index + 1])
        return torch.stack(logits)

    @torch.inference_mode()
    def compare(self, kind: str, wide: torch.dtype, cache: torch.dtype) -> Values:
        if kind != self.kind:
            self.lm, self.kind = self.checkpoint.lm(device=self.device, dtype=wide), kind
            quantize(self.lm, kind)
        logits = self.logits(cache, self.past, self.scales if cache == FP8 else None)
        same = float((logits.argmax(dim=-1) == self.past).float().mean())
        return {"same_token": round(same, 4), "logits_error": round(relative(logits, self.expected), 4)}


def agreement(context: Context) -> Iterator[Item]:
    """Measure how often other data types choose the token that f32 chooses, given the same past."""
    runs = Agreement(context, 12 if context.quick else 100)
    half = torch.bfloat16
    variants: dict[str, tuple[str, torch.dtype, torch.dtype]] = {
        "f32 weights, fp8 cache": ("f32", torch.float32, FP8),
        "bf16": ("bf16", half, half),
        "bf16 weights, fp8 cache": ("bf16", half, FP8),
        "f16": ("f16", torch.float16, torch.float16),
    }
    if context.cuda and torch.cuda.get_device_capability() >= (8, 9):
        variants["fp8 weights, bf16 cache"] = ("fp8", half, half)
        variants["fp8 weights, fp8 cache"] = ("fp8", half, FP8)
    yield Item("f32", runs.start, setup=True)
    limits: dict[str, Limit] = {"same_token": at_least(0.75), "logits_error": at_most(0.15)}
    for name, variant in variants.items():
        run = lambda variant=variant: runs.compare(*variant)  # noqa: E731
        yield Item(name, run, limits, shown=("same_token", "logits_error"))

"""Rates of copies and of attention, and the kernels of a step by their time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from sustained.attention import attention_rate, sweep
from sustained.run import fill_with_noise
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from gpu.exactness import loaded
from gpu.items import Context, Item, Limit, Values, at_least, skipped
from gpu.streams import run_rows
from tympan.bench.measure import copy_rate, synchronize
from tympan.engine.kyutai.capacity import full_context_rows, streams_that_fit
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.models.checkpoints.checkpoint import describe
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.layers.attention import FP8, Ring

ROWS, LAYERS = 512, 4
KERNELS_LISTED = 25


def rates(context: Context) -> Iterator[Item]:
    """Measure the copy rate, and the read rate of attention as a share of it."""
    found: dict[str, float] = {}
    device = torch.device(context.device)

    def copied() -> Values:
        found["copy"] = copy_rate(device, 64 * 2**20 if context.quick else None)
        return {"copy_gbps": round(found["copy"] / 1e9, 1)}

    yield Item("copy", copied, shown=("copy_gbps",), setup=True)
    if not context.cuda:
        yield skipped("attention", "needs CUDA")
        return
    for dtype, least in ((torch.bfloat16, 0.6), (FP8, 0.4)):
        limits: dict[str, Limit] = {"share": at_least(least)}
        name = f"attention, {ROWS} rows, {str(dtype)[6:]}"

        def run(dtype: torch.dtype = dtype) -> Values:
            return attention(context, dtype, found["copy"])

        yield Item(name, run, limits, shown=("gbps", "share", "by_config"))


def attention(context: Context, dtype: torch.dtype, copied: float) -> Values:
    config = open_checkpoint(context.model).config.lm.transformer
    shape = (LAYERS, ROWS, config.heads, config.context, config.head_dimension)
    ring = Ring.empty(*shape, device=torch.device(context.device), dtype=dtype)
    fill_with_noise(ring)
    rate = attention_rate(ring, ROWS, torch.bfloat16)
    by_config = {name: round(each / 1e9) for name, each in sweep(ring, ROWS, torch.bfloat16).items()}
    return {"gbps": round(rate / 1e9, 1), "share": round(rate / copied, 3), "by_config": by_config}


def profiles(context: Context) -> Iterator[Item]:
    """List the kernels of one eager step at full context, by their time on the GPU."""
    counts = (1, 64, 512) if context.cuda else (1, 2)
    runners: list[KyutaiRunner] = []

    def load() -> Values:
        model, info = loaded(context.checkpoint, "bf16" if context.cuda else "f32", context.device)
        slots = max(counts)
        if context.cuda:
            free, _ = torch.cuda.mem_get_info()
            slots = min(slots, streams_that_fit(free, describe(open_checkpoint(context.model)).stream_bytes))
        runners.append(KyutaiRunner(model, info, slots))
        return {"slots": slots}

    yield Item("load", load, setup=True)
    for count in counts:
        name = f"{count} row{'s' * (count > 1)}"
        if not runners:
            yield skipped(name, "the model was not loaded")
        elif count > runners[0].slots:
            yield skipped(name, "they do not fit into the memory")
        else:
            yield Item(name, partial(profiled, runners[0], count, context), shown=("device_ms", "launches"))


def profiled(runner: KyutaiRunner, count: int, context: Context) -> Values:
    rows = full_context_rows(runner, count)
    for _ in range(2):
        run_rows(runner, rows)
    device = torch.device(context.device)
    synchronize(device)
    on, kind = (ProfilerActivity.CPU, DeviceType.CPU)
    if context.cuda:
        on, kind = (ProfilerActivity.CUDA, DeviceType.CUDA)
    with profile(activities=[on]) as profiler:
        run_rows(runner, rows)
        synchronize(device)
    events = [event for event in profiler.key_averages() if event.device_type == kind]
    seconds = {event.key: _microseconds(event, context) for event in events}
    events.sort(key=lambda event: -seconds[event.key])
    total = sum(seconds.values())
    lines = [f"{'kernel':<90}{'calls':>7}{'ms':>10}{'share':>8}"]
    for event in events[:KERNELS_LISTED]:
        spent = seconds[event.key]
        lines.append(f"{event.key[:88]:<90}{event.count:>7}{spent / 1000:>10.3f}{spent / max(total, 1e-9):>8.1%}")
    print("\n".join(lines), flush=True)
    launches = sum(event.count for event in events)
    return {"device_ms": round(total / 1000, 3), "launches": launches, "kernels": lines}


def _microseconds(event: object, context: Context) -> float:
    name = "self_device_time_total" if context.cuda else "self_cpu_time_total"
    return float(getattr(event, name))

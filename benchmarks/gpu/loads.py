"""Loads of live streams in real time, and the moshi package's loop on the same weights."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import msgspec
import torch
from sustained.live import LiveLoad, LiveRun
from sustained.moshi_loop import MoshiLoop, carried, next_batch
from sustained.run import IDLE, Prepared, Run, idle_flush, prepare, run_load

from gpu.items import Context, Item, Limit, Values, at_least, at_most, skipped
from tympan.config import ModelSettings
from tympan.deploy.capacity import gpu_of_device
from tympan.deploy.prices import GPUS, PRICES_AS_OF
from tympan.engine.batching.engine import BatchedEngine
from tympan.models.checkpoints.load import open_checkpoint

FINEST = 32  # streams; between a load that keeps up and one that does not, one more is tried if they are further apart
FLUSH_EVERY = 0.2  # seconds, in the load for the flush latency


class Loads:
    """The loads of one runner, from few streams to all of its slots.

    Options: ``dtype`` and ``cache``; ``streams``, the counts to try, in which ``fit`` is what the memory holds;
    ``seconds`` of each load; ``target``, the streams that the limit asks for.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        options = context.options
        self.wanted = ["1", "3"] if context.quick else options["streams"].split(",")
        self.seconds = 1.0 if context.quick else float(options.get("seconds", "9"))
        self.warm_up = 0.3 if context.quick else 2.0
        self.slots = None if "fit" in self.wanted else max(int(count) for count in self.wanted)
        dtype = options["dtype"] if context.cuda else "f32"
        cache = options["cache"] if context.cuda or options["cache"] == "fp8" else "f32"
        settings = {"model": context.checkpoint, "device": context.device, "dtype": dtype, "kv_dtype": cache}
        self.settings = msgspec.convert(settings, ModelSettings)
        self.prepared: Prepared | None = None
        self.idle: Run = {}
        self.runs: list[Run] = []

    def prepare(self) -> Values:
        self.prepared = prepare(self.settings, self.slots)
        common = self.prepared.common
        common |= {"model": self.context.model, "command": self.context.command}
        common["commit"] = self.context.commit or common["commit"]
        return common

    def counts(self) -> list[int]:
        assert self.prepared is not None
        slots = self.prepared.runner.slots
        return sorted({min(slots, slots if count == "fit" else int(count)) for count in self.wanted})

    async def flush_alone(self, engine: BatchedEngine) -> Values:
        idle = LiveLoad(streams=1, seconds=1.0, flush_every=0.2, warm_up=0.2) if self.context.quick else IDLE
        self.idle = idle_flush(await LiveRun(engine, idle).run())
        return self.idle

    async def run(self, engine: BatchedEngine, count: int, flush_every: float = 0.25) -> Values:
        load = LiveLoad(streams=count, seconds=self.seconds, warm_up=self.warm_up, flush_every=flush_every)
        assert self.prepared is not None
        run = {**self.prepared.common, **self.idle, **await run_load(engine, load)}
        self.runs.append(run)
        return run

    @property
    def kept_up(self) -> list[int]:
        return [int(str(run["streams"])) for run in self.runs if run["kept_up"]]

    @property
    def too_many(self) -> list[int]:
        return [int(str(run["streams"])) for run in self.runs if not run["kept_up"]]

    def sustained(self) -> Values:
        """Return the largest number of streams that kept up, and the price and the memory of a stream."""
        assert self.prepared is not None
        common, most = self.prepared.common, max(self.kept_up, default=0)
        names = (
            "slots",
            "bytes_per_stream",
            "bytes_per_stream_measured",
            "batch1_step_ms",
            "attention_copy_rate_share",
        )
        values: dict[str, object] = {"sustained_streams": most, **{name: common.get(name) for name in names}}
        gpu = gpu_of_device(str(common["gpu"]))
        if gpu is not None and most:
            dollars = 3600 * GPUS[gpu].dollars_per_second
            values |= {"dollars_per_stream_hour": round(dollars / most, 6), "gpu_dollars_per_hour": round(dollars, 3)}
            values["prices_as_of"] = PRICES_AS_OF
        return values


def loads(context: Context) -> Iterator[Item]:
    state = Loads(context)
    cuda = context.cuda
    limits: dict[str, Limit] = (
        {"batch1_step_ms": at_most(4.0), "attention_copy_rate_share": at_least(0.4)} if cuda else {}
    )
    if context.options.get("cache") == "bf16" and cuda:
        limits["attention_copy_rate_share"] = at_least(0.6)
    shown = ("slots", "batch1_step_ms", "full_step_ms", "attention_copy_rate_share", "bytes_per_stream_measured")
    yield Item("one step", state.prepare, limits, shown=shown)
    if state.prepared is None:
        return
    prepared = state.prepared
    with asyncio.Runner() as loop:
        engine = BatchedEngine(lambda: prepared.runner)
        loop.run(engine.start())
        try:
            yield Item(
                "flush, idle",
                lambda: loop.run(state.flush_alone(engine)),
                shown=("flush_ms_p50_idle", "flush_ms_p99_idle"),
            )
            yield from _live_items(state, loop, engine)
        finally:
            loop.run(engine.stop())
    limits = {"sustained_streams": at_least(float(context.options.get("target", "0")))} if cuda else {}
    yield Item("sustained", state.sustained, limits, shown=("sustained_streams", "dollars_per_stream_hour"))


def _live_items(state: Loads, loop: asyncio.Runner, engine: BatchedEngine) -> Iterator[Item]:
    shown = ("streams", "step_ms_p50", "step_ms_p99", "frame_to_token_ms_p99", "flush_ms_p99_loaded", "kept_up")
    takes = state.seconds + state.warm_up + 1.0
    reserve = takes if "target" in state.context.options else 0.0  # for the load at 90 %

    def load(count: int) -> Item:
        return Item(f"{count} streams", lambda: loop.run(state.run(engine, count)), shown=shown)

    for count in state.counts():
        if state.too_many:
            yield skipped(f"{count} streams", f"{state.too_many[0]} were too many")
        elif state.context.left() < takes + reserve:
            yield skipped(f"{count} streams", f"{state.context.left():.0f} s left")
        else:
            yield load(count)
    below, above = max(state.kept_up, default=0), min(state.too_many, default=0)
    if below and above - below > FINEST and state.context.left() > takes + reserve:
        yield load((below + above) // 2)
    count = max(state.kept_up, default=0) * 9 // 10
    name = f"90 % load: {count} streams"
    if not reserve:
        return
    if not count or state.context.left() < takes:
        yield skipped("90 % load", f"no load kept up, or no time: {state.context.left():.0f} s left")
        return
    yield Item(name, lambda: loop.run(state.run(engine, count, FLUSH_EVERY)), shown=(*shown, "flush_ms_p50_loaded"))


def moshi(context: Context) -> Iterator[Item]:
    """Search the largest batch that the moshi package's loop carries, by doubling and then by bisection."""
    device = torch.device(context.device)
    found: dict[int, float] = {}
    loops: list[MoshiLoop] = []
    compiles = not os.environ.get("NO_TORCH_COMPILE")

    def build() -> Values:
        dtype = torch.bfloat16 if context.cuda else torch.float32
        loops.append(MoshiLoop(open_checkpoint(context.checkpoint).lm(device=device, dtype=dtype), device))
        return {"moshi": loops[0].version, "compiled": compiles}

    def step(batch: int) -> Values:
        found[batch] = float("inf")
        found[batch] = loops[0].step_ms_p99(batch)
        return {"streams": batch, "moshi_step_ms_p99": found[batch], "compiled": compiles}

    yield Item("build", build, shown=("moshi", "compiled"))
    if not loops:
        return
    most = 1024 if context.cuda else 2
    batch: int | None = 64 if context.cuda else 1
    while batch is not None and context.left() > (25.0 if context.cuda else 5.0):
        yield Item(f"{batch} streams", lambda batch=batch: step(batch), shown=("moshi_step_ms_p99",))  # type: ignore[misc]
        batch = next_batch(found, most)
    most_carried = carried(found)
    values = {"moshi_streams": most_carried, "moshi_step_ms_p99": found.get(most_carried), "compiled": compiles}
    yield Item("carried", lambda: values, {"moshi_streams": at_least(1)} if context.cuda else {}, shown=tuple(values))

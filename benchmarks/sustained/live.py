"""Live streams through the real engine in real time, each at its own phase; some end and others begin.

One clock pushes a frame of every stream every 80 ms, at a random one of 40 ticks. A stream lives for a while, then
finishes and a new one takes its slot. A random stream requests a flush at regular intervals. Times are measured outside
the engine: that of a frame is from its push to the delivery of its result.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tympan.bench.measure import percentile
from tympan.engine.base import Engine, EngineStream, StepReport
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Progress, Samples

TICKS = 40  # in a frame
BUDGET_MS = 80.0
SLOWEST_TOKEN_MS = 160.0  # the running step and the next one
_NOISES = 64


@dataclass(frozen=True)
class LiveLoad:
    """A load. Times are in seconds; a stream lives `life` on average, and a flush is requested every `flush_every`."""

    streams: int
    seconds: float = 20.0
    life: float = 30.0
    flush_every: float = 0.25
    warm_up: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class LiveFigures:
    """Figures of a load. `kept_up`: the 99th percentile is one frame for a step and two frames for a token, at most."""

    streams: int
    seconds: float
    starts: int
    steps: int
    rows_p50: int
    rows_max: int
    step_ms_p50: float
    step_ms_p95: float
    step_ms_p99: float
    frame_to_token_ms_p50: float
    frame_to_token_ms_p95: float
    frame_to_token_ms_p99: float
    flushes: int
    flush_ms_p50: float | None
    flush_ms_p99: float | None
    late_ticks_ms_p99: float
    kept_up: bool


@dataclass
class Caller:
    """A live stream, and the times of its pending frames and requests."""

    tick: int
    stream: EngineStream
    ends_at: float
    pushed: deque[float] = field(default_factory=deque)
    flushed_at: float | None = None
    finished_at: float | None = None


class LiveRun:
    """One load on an engine that is running."""

    def __init__(self, engine: Engine, load: LiveLoad) -> None:
        self._engine = engine
        self._load = load
        self._random = random.Random(load.seed)
        self._frames = _noise(engine.info.frame_samples, load.seed)
        self._callers: list[list[Caller]] = [[] for _ in range(TICKS)]
        self._steps: list[StepReport] = []
        self._token_seconds: list[float] = []
        self._flush_seconds: list[float] = []
        self._late_seconds: list[float] = []
        self._starts = 0
        self._next_frame = 0
        self._measuring = False
        self._failure: Exception | None = None

    async def run(self) -> LiveFigures:
        """Run the load; raise the error with which the engine failed, if it fails."""
        load = self._load
        self._engine.observe = lambda report: self._steps.append(report) if self._measuring else None
        try:
            for _ in range(load.streams):  # in the middle of their lives
                self._open(self._random.randrange(TICKS), time.monotonic() + self._random.random() * load.life)
            await self._drive(load.warm_up)
            self._measuring = True
            await self._drive(load.seconds)
        finally:
            self._measuring = False
            self._engine.observe = None
            for caller in [caller for callers in self._callers for caller in callers]:
                caller.stream.close()
        return self._figures()

    async def _drive(self, seconds: float) -> None:
        """Push every stream's frames when they are due, and record late ticks, which show the limit of the load."""
        tick_seconds = self._engine.info.frame_seconds / TICKS
        start = time.monotonic()
        next_flush = start
        for tick in range(round(seconds / tick_seconds)):
            due = start + tick * tick_seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._failure is not None:
                raise self._failure
            now = time.monotonic()
            self._record(self._late_seconds, now - due)
            callers = self._callers[tick % TICKS]
            for caller in callers:
                self._push(caller, now)
            if now >= next_flush and callers:
                self._flush(self._random.choice(callers), now)
                next_flush = now + self._load.flush_every

    def _open(self, tick: int, until: float) -> None:
        self._starts += 1
        waiting: list[Caller] = []
        stream = self._engine.open(lambda events: self._on_events(waiting[0], events))
        waiting.append(Caller(tick, stream, until))
        self._callers[tick].append(waiting[0])

    def _push(self, caller: Caller, now: float) -> None:
        if caller.finished_at is not None:
            return
        if now >= caller.ends_at:
            caller.finished_at = now
            caller.stream.finish()
            return
        caller.pushed.append(now)
        self._next_frame = (self._next_frame + 1) % _NOISES
        caller.stream.push(self._frames[self._next_frame])

    def _flush(self, caller: Caller, now: float) -> None:
        if caller.flushed_at is None and caller.finished_at is None:
            caller.flushed_at = now
            caller.stream.flush(0)

    def _on_events(self, caller: Caller, events: Sequence[EngineEvent]) -> None:
        now = time.monotonic()
        for event in events:
            match event:
                case Progress():
                    self._record(self._token_seconds, now - caller.pushed.popleft())
                case Flushed():
                    assert caller.flushed_at is not None
                    self._record(self._flush_seconds, now - caller.flushed_at)
                    caller.flushed_at = None
                case Finished():
                    self._callers[caller.tick].remove(caller)
                    self._open(caller.tick, now + self._random.uniform(0.5, 1.5) * self._load.life)
                case Failed(error):
                    self._failure = error

    def _record(self, times: list[float], seconds: float) -> None:
        if self._measuring:
            times.append(seconds)

    def _figures(self) -> LiveFigures:
        steps = [step.seconds for step in self._steps]
        rows = [step.rows for step in self._steps]
        step_p99, token_p99 = _ms(steps, 99), _ms(self._token_seconds, 99)
        return LiveFigures(
            streams=self._load.streams,
            seconds=self._load.seconds,
            starts=self._starts,
            steps=len(steps),
            rows_p50=round(percentile(rows, 50)),
            rows_max=max(rows),
            step_ms_p50=_ms(steps, 50),
            step_ms_p95=_ms(steps, 95),
            step_ms_p99=step_p99,
            frame_to_token_ms_p50=_ms(self._token_seconds, 50),
            frame_to_token_ms_p95=_ms(self._token_seconds, 95),
            frame_to_token_ms_p99=token_p99,
            flushes=len(self._flush_seconds),
            flush_ms_p50=_ms(self._flush_seconds, 50) if self._flush_seconds else None,
            flush_ms_p99=_ms(self._flush_seconds, 99) if self._flush_seconds else None,
            late_ticks_ms_p99=_ms(self._late_seconds, 99),
            kept_up=step_p99 < BUDGET_MS and token_p99 < SLOWEST_TOKEN_MS,
        )


def _noise(samples: int, seed: int) -> list[Samples]:
    noise = np.random.default_rng(seed).standard_normal((_NOISES, samples)).astype(np.float32) * 0.1
    return list(noise)


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(1000 * percentile(seconds, percent), 2)

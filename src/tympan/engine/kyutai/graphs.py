"""A recorded step per bucket: replaying a graph starts hundreds of kernels at the cost of one launch.

A batch is padded to the next bucket. Padding rows run in a slot that no stream has and begin anew in every step, so
they attend to one entry; inactive slots are in no row and cost nothing.

Only `CudaDevice` talks to a GPU. Everything else, tests show on a CPU with a device that runs what it should record.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch

from tympan.engine.kyutai.buckets import bucket_sizes
from tympan.engine.kyutai.program import StepProgram


class Device(Protocol):
    """What graphs need of a device."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `run` starts on the device; the returned callable starts it all again."""

    def record_event(self) -> Callable[[], None]:
        """Record an event on the current stream; the returned callable waits for it."""


class CudaDevice:
    """One GPU. Graphs share their memory: record the largest first, then the others fit into what it took."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        run()  # compiles kernels and lets libraries set themselves up, which cannot be recorded
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        replay: Callable[[], None] = graph.replay
        return replay

    def record_event(self) -> Callable[[], None]:
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # a waiting thread sleeps
        event.record()
        wait: Callable[[], None] = event.synchronize
        return wait


class Graphs:
    """The steps of one program, from 1 row to `largest`."""

    def __init__(self, program: StepProgram, device: Device, largest: int) -> None:
        self.buckets = bucket_sizes(largest)
        self._replay = {rows: device.record(partial(program.run, rows)) for rows in reversed(self.buckets)}

    def bucket(self, rows: int) -> int:
        """The smallest bucket that holds `rows`."""
        return self.buckets[bisect.bisect_left(self.buckets, rows)]

    def run(self, bucket: int) -> None:
        """Start the step of the first `bucket` rows; returns at once."""
        self._replay[bucket]()

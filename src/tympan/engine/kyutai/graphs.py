"""Recorded steps: replaying a CUDA graph starts hundreds of kernels at the cost of one launch.

There is one graph per bucket, and a batch is padded to the next bucket. Padding rows run in a slot that no stream has
and start anew in every step, so they attend to one entry only. Slots without a row cost nothing.

Only `CudaDevice` needs a GPU. Tests replace it with a device that runs the work instead of recording it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch

from tympan.engine.batching.buckets import bucket, bucket_sizes
from tympan.engine.kyutai.program import StepProgram


class Device(Protocol):
    """Operations of a device that records steps."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `run` starts on the device; the returned callable starts it again."""

    def record_event(self) -> Callable[[], None]:
        """Record an event on the current stream; the returned callable waits for it."""


class CudaDevice:
    """One GPU. Its graphs share their memory: if the largest is recorded first, the others fit into its memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run once, then capture a CUDA graph. Kernels are compiled in the first run, which cannot be captured."""
        run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        replay: Callable[[], None] = graph.replay
        return replay

    def record_event(self) -> Callable[[], None]:
        """Record a CUDA event on the current stream; the returned callable waits for it without using the CPU."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        wait: Callable[[], None] = event.synchronize
        return wait


class Graphs:
    """Recorded steps of one program, from 1 row to `largest`."""

    def __init__(self, program: StepProgram, device: Device, largest: int) -> None:
        self._largest = largest
        self._replay = {rows: device.record(partial(program.run, rows)) for rows in reversed(bucket_sizes(largest))}

    def bucket(self, rows: int) -> int:
        """Return the smallest bucket that holds `rows`."""
        return min(bucket(rows), self._largest)

    def run(self, bucket: int) -> None:
        """Start the step of the first `bucket` rows, and return at once."""
        self._replay[bucket]()

"""Percentiles, times of GPU events and the rate of memory copies."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

CPU_COPY_BYTES, GPU_COPY_BYTES = 512 * 2**20, 4 * 2**30
COPY_ROUNDS = 10


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that ``percent`` of ``values`` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def copy_rate(device: torch.device, size_bytes: int | None = None) -> float:
    """Return the bytes per second of a large copy; bytes read and bytes written both count.

    The data is random, because zeros take less power on a GPU and therefore copy faster. On a GPU the result is the
    median of all rounds, timed with events; on a CPU, which other programs share, it is the best round.

    Args:
        device: The device, with ``2 * size_bytes`` of free memory.
        size_bytes: Size of the data; by default 4 GiB on a GPU and 512 MiB on a CPU.
    """
    on_gpu = device.type == "cuda"
    size_bytes = size_bytes or (GPU_COPY_BYTES if on_gpu else CPU_COPY_BYTES)
    source = torch.empty(size_bytes // 4, dtype=torch.int32, device=device).random_()
    target = torch.empty_like(source)
    target.copy_(source)
    if on_gpu:
        return 2 * size_bytes / median(event_seconds(lambda: target.copy_(source), COPY_ROUNDS, device))
    times = []
    for _ in range(COPY_ROUNDS):
        start = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - start)
    return 2 * size_bytes / min(times)


def event_seconds(action: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    """Return the seconds that each of ``rounds`` calls of ``action`` takes on a GPU, timed with events."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]  # type: ignore[no-untyped-call]
    for event in events[:-1]:
        event.record()
        action()
    events[-1].record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) / 1000 for start, end in itertools.pairwise(events)]


def synchronize(device: torch.device) -> None:
    """Wait until the device has completed all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

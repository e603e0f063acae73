"""Percentiles, and how fast this machine copies memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

COPY_BYTES = 512 * 2**20
COPY_ROUNDS = 5


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def copy_rate(device: torch.device) -> float:
    """Bytes per second of a large copy, read and written bytes together: the best of a few."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(COPY_ROUNDS + 1):
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * COPY_BYTES / min(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

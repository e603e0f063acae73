"""How fast attention reads the ring, to be compared with the rate of a copy. For GPUs with kernels only."""

from __future__ import annotations

import time
from statistics import median

import torch

from tympan.bench.measure import synchronize
from tympan.engine.calibrate import OLD_SECONDS
from tympan.engine.graphs import CudaDevice
from tympan.models.attention import Ring

ROUNDS = 20


def attention_rate(ring: Ring, rows: int, dtype: torch.dtype, **options: int) -> float:
    """Bytes per second at which one step of each of `rows` streams at full context reads keys and values.

    All layers in turn, so that no cache holds what is read. options: those of `read_window`.
    """
    from tympan.models.kernels.attention import read_window

    layers, _, heads, capacity, width = ring.keys.shape
    device = ring.keys.device
    slots = torch.arange(rows, device=device)
    positions = torch.full((rows, 1), int(OLD_SECONDS * 12.5), device=device)
    query = torch.randn(rows, 1, heads, width, device=device, dtype=dtype)

    def attend(layer: int) -> None:
        scales = None if ring.scales is None else ring.scales[:, layer]
        read_window(query, slots, positions, ring.keys[layer], ring.values[layer], scales, **options)

    def attend_everywhere() -> None:
        for layer in range(layers):
            attend(layer)

    replay = CudaDevice().record(attend_everywhere)
    times = []
    for _ in range(ROUNDS):
        synchronize(device)
        start = time.perf_counter()
        replay()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return rows * layers * 2 * heads * capacity * width * ring.keys.element_size() / median(times)


def sweep(ring: Ring, rows: int, dtype: torch.dtype) -> dict[str, float]:
    """The rate for some ways to cut the work, by `block x warps x stages`."""
    rates = {}
    for block in (8, 16, 32, 64):
        for warps in (2, 4, 8):
            for stages in (1, 2, 3, 4):
                name = f"{block}x{warps}x{stages}"
                try:
                    rates[name] = attention_rate(ring, rows, dtype, block=block, warps=warps, stages=stages)
                except Exception as error:  # does not fit into shared memory, for one
                    rates[f"{name} ({type(error).__name__})"] = 0.0
    return rates

"""The rate at which attention reads the ring, on GPUs with kernels, for comparison with a copy."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import torch

from tympan.bench.measure import event_seconds
from tympan.engine.kyutai.capacity import FULL_CONTEXT_SECONDS
from tympan.engine.kyutai.graphs import CudaDevice
from tympan.models.layers.attention import Ring

if TYPE_CHECKING:
    from tympan.models.kernels.attention import ReadConfig

ROUNDS = 20


def attention_rate(ring: Ring, rows: int, dtype: torch.dtype, config: ReadConfig | None = None) -> float:
    """Return the bytes per second at which one step of ``rows`` streams at full context reads keys and values.

    All layers are read in turn, so that no cache of the GPU holds the data.

    Args:
        ring: Ring on a GPU with at least ``rows`` slots, filled with values: zeros can be faster to read.
        rows: Streams, with one query each.
        dtype: Data type of the queries.
        config: Configuration of the kernel; by default the one that serving uses.
    """
    from tympan.models.kernels.attention import read_window

    layers, _, heads, capacity, width = ring.keys.shape
    device = ring.keys.device
    slots = torch.arange(rows, device=device)
    positions = torch.full((rows, 1), int(FULL_CONTEXT_SECONDS * 12.5), device=device)
    query = torch.randn(rows, 1, heads, width, device=device, dtype=dtype)

    def attend_everywhere() -> None:
        for layer in range(layers):
            scales = None if ring.scales is None else ring.scales[:, layer]
            read_window(query, slots, positions, ring.keys[layer], ring.values[layer], scales, config=config)

    replay = CudaDevice().record(attend_everywhere)
    replay()
    seconds = median(event_seconds(replay, ROUNDS, device))
    return rows * layers * 2 * heads * capacity * width * ring.keys.element_size() / seconds


def sweep(ring: Ring, rows: int, dtype: torch.dtype) -> dict[str, float]:
    """Return the rate of each configuration, by ``block x warps x stages``; 0 for one that does not run here."""
    from tympan.models.kernels.attention import CONFIGS, ReadConfig

    rates = {}
    for config in (*CONFIGS, ReadConfig(64, 4, 2), ReadConfig(32, 4, 1)):
        name = "x".join(map(str, config))
        try:
            rates[name] = attention_rate(ring, rows, dtype, config)
        except Exception as error:  # for example too much shared memory
            rates[f"{name} ({type(error).__name__})"] = 0.0
    return rates

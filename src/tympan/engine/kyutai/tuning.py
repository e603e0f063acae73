"""Selection of the attention kernel's configuration, by timing each one on the GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from tympan.models import kernels
from tympan.models.layers.attention import Ring

logger = logging.getLogger(__name__)

Calls = Sequence[Callable[[], object]]

_ROUNDS = 7
_CUTOFF = 4.0  # a candidate that takes this many times the best of the first round is not timed again
_MOST_ROWS = 256  # enough to fill any GPU several times
_MARGIN = 1.03  # an earlier configuration wins over one that is at most this much faster
_OLD_POSITION = 1 << 20  # position of a stream whose ring has long been full


def select_read_config(ring: Ring, rows: int, dtype: torch.dtype) -> None:
    """Time every configuration and select the fastest one for all later kernels and graphs.

    Must be called before steps are recorded. Does nothing where Triton does not run. The ring is not changed.

    Args:
        ring: KV cache of the language model that will serve.
        rows: Most rows of a step.
        dtype: Data type of the queries.
    """
    if not kernels.usable(ring.keys.device):
        return
    from tympan.models.kernels.attention import CONFIGS, select_config

    contenders: dict[str, Calls] = {}
    for index, config in enumerate(CONFIGS):
        call = partial(_read_all_layers, ring, min(rows, _MOST_ROWS), dtype, index)
        try:
            call()
        except Exception as error:  # for example, it needs more shared memory than this GPU has
            logger.debug("attention configuration %s does not run here: %s", config, error)
        else:
            contenders[str(index)] = [call]
    if contenders:
        chosen = CONFIGS[int(fastest(contenders, margin=_MARGIN))]
        select_config(1, ring.keys.shape[-1], ring.keys.dtype, chosen)
        logger.info("attention kernel: %d entries per block, %d warps, %d stages", *chosen)


def _read_all_layers(ring: Ring, rows: int, dtype: torch.dtype, index: int) -> None:
    """Attend with one query per row over full rings, and wait for the result."""
    from tympan.models.kernels.attention import CONFIGS, ring_attention

    layers, _, heads, _, width = ring.keys.shape
    device = ring.keys.device
    query = torch.ones(rows, 1, heads, width, device=device, dtype=dtype)
    slots, positions = torch.arange(rows, device=device), torch.full((rows, 1), _OLD_POSITION, device=device)
    for layer in range(layers):
        scales = None if ring.scales is None else ring.scales[:, layer]
        ring_attention(query, slots, positions, ring.keys[layer], ring.values[layer], scales, config=CONFIGS[index])
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(candidates: Mapping[str, Calls], *, margin: float, clock: Callable[[], float] = time.perf_counter) -> str:
    """Return the name of the candidate whose calls take the least time.

    The candidates are timed in turn for several rounds, and each call counts with its best time, so that other programs
    on the machine affect no candidate more than the others. A warm-up round, which may compile kernels, is not timed.

    Args:
        candidates: The calls of each candidate, in order of preference. Several calls on different memory show how fast
            a candidate reads memory.
        margin: A candidate may take this many times the shortest time and still be preferred to later ones.
        clock: Returns the time in seconds.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    for calls in candidates.values():
        calls[0]()
    best = {name: _seconds(calls, clock) for name, calls in candidates.items()}
    limit = _CUTOFF * min(map(sum, best.values()))
    best = {name: seconds for name, seconds in best.items() if sum(seconds) <= limit}
    for _ in range(_ROUNDS):
        for name, seconds in best.items():
            best[name] = [min(pair) for pair in zip(seconds, _seconds(candidates[name], clock), strict=True)]
    limit = margin * min(map(sum, best.values()))
    return next(name for name, seconds in best.items() if sum(seconds) <= limit)


def _seconds(calls: Calls, clock: Callable[[], float]) -> list[float]:
    """Return the duration of each call."""
    durations = []
    for call in calls:
        start = clock()
        call()
        durations.append(clock() - start)
    return durations

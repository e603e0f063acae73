"""Number of streams that fit into a GPU's memory."""

from __future__ import annotations

import torch

from tympan.engine.base import EngineInfo
from tympan.engine.kyutai.graphs import CudaDevice
from tympan.engine.kyutai.placement import Placement
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import ConfigError
from tympan.models import kernels
from tympan.models.checkpoints.checkpoint import Checkpoint, describe

GIB = 2**30
_FIXED_BYTES = GIB  # libraries, graphs, fragmentation
_ROW_BYTES = 2**20  # most memory per row that a step uses at once
_EARLY_ROW_BYTES = 6 * 2**20  # the same in the codec's first convolutions
_EARLY_ROWS = 256  # most rows that run through those at once


def stream_bytes(checkpoint: Checkpoint, placement: Placement) -> int:
    """Return the bytes that the state of one stream takes."""
    return describe(checkpoint, dtype=placement.cache).stream_bytes


def streams_that_fit(free_bytes: int, stream_bytes: int) -> int:
    """Return how many streams fit into `free_bytes`, with a step of all of them and a slot for padding rows."""
    left = free_bytes - _FIXED_BYTES - stream_bytes
    few = left // (stream_bytes + _ROW_BYTES + _EARLY_ROW_BYTES)
    if few <= _EARLY_ROWS:
        return max(0, few)
    return (left - _EARLY_ROWS * _EARLY_ROW_BYTES) // (stream_bytes + _ROW_BYTES)


def allocate(
    model: LoadedModel, info: EngineInfo, stream_bytes: int, slots: int | None, most_streams: int | None = None
) -> KyutaiRunner:
    """Return a runner on a GPU with `slots`, or with as many as fit, up to `most_streams`.

    Raises:
        ConfigError: The slots do not fit; the message says how many do.
    """
    torch.cuda.empty_cache()  # temporary memory of loading
    free, _ = torch.cuda.mem_get_info(model.device)
    # Without kernels a step copies the rings of its rows, one layer at a time.
    fit = streams_that_fit(free, stream_bytes if kernels.usable(model.device) else stream_bytes + stream_bytes // 4)
    if slots is None and most_streams is not None:
        fit = min(fit, most_streams)
    slots = slots_for(slots, fit, info.device, stream_bytes)
    try:
        return KyutaiRunner(model, info, slots, device=CudaDevice())
    except torch.OutOfMemoryError:
        raise _too_many(slots, slots * 9 // 10, info.device, stream_bytes) from None


def slots_for(slots: int | None, fit: int, device: str, stream_bytes: int) -> int:
    """Return the number of slots to allocate, by default all that fit. Raise `ConfigError` if they do not fit."""
    if fit < 1:
        raise ConfigError(f"{device} has no room for even one stream beside the model: it needs {_mib(stream_bytes)}")
    if slots is not None and slots > fit:
        raise _too_many(slots, fit, device, stream_bytes)
    return fit if slots is None else slots


def _too_many(slots: int, fit: int, device: str, stream_bytes: int) -> ConfigError:
    return ConfigError(
        f"{slots} streams of {_mib(stream_bytes)} do not fit into the memory of {device}; use --max-streams {fit}"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"

"""Batch sizes that steps are recorded for. The scheduler fills batches up to them; smaller batches are padded."""

from __future__ import annotations

_DOUBLING = 128  # up to here a step's time is mostly reading weights, so doubling costs little
_FINE, _FINE_STEP, _COARSE_STEP = 512, 64, 128


def bucket(rows: int) -> int:
    """Return the batch size that ``rows`` are computed as: a power of two, then a multiple of 64, then of 128."""
    if rows <= _DOUBLING:
        return 1 << (rows - 1).bit_length()
    step = _FINE_STEP if rows <= _FINE else _COARSE_STEP
    return -(-rows // step) * step


def bucket_sizes(largest: int) -> list[int]:
    """Return all batch sizes up to ``largest``, which is always one of them, in ascending order."""
    sizes, size = [], 1
    while size < largest:
        sizes.append(size)
        size = bucket(size + 1)
    return [*sizes, largest]

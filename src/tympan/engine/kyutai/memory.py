"""How many streams a GPU's memory holds, and the sentence that says so when more were asked for."""

from __future__ import annotations

from tympan.errors import ConfigError

GIB = 2**30
_FIXED_BYTES = GIB  # libraries, graphs, fragments
_ROW_BYTES = 2**20  # what a step keeps per row while it runs, at the most at once
_EARLY_ROW_BYTES = 6 * 2**20  # in the codec's first convolutions
_EARLY_ROWS = 256  # that run through them at once


def streams_that_fit(free_bytes: int, stream_bytes: int) -> int:
    """Streams whose state, and a step of all of them, fit into `free_bytes`, beside a slot for padding rows."""
    left = free_bytes - _FIXED_BYTES - stream_bytes
    few = left // (stream_bytes + _ROW_BYTES + _EARLY_ROW_BYTES)
    if few <= _EARLY_ROWS:
        return max(0, few)
    return (left - _EARLY_ROWS * _EARLY_ROW_BYTES) // (stream_bytes + _ROW_BYTES)


def slots_for(asked: int | None, fit: int, device: str, stream_bytes: int) -> int:
    """Slots to allocate: those asked for, or all that fit. Raises `ConfigError` when they do not fit."""
    if fit < 1:
        raise ConfigError(f"{device} has no room for even one stream beside the model: it needs {_mib(stream_bytes)}")
    if asked is not None and asked > fit:
        raise too_many(asked, fit, device, stream_bytes)
    return fit if asked is None else asked


def too_many(asked: int, fit: int, device: str, stream_bytes: int) -> ConfigError:
    """The error for more streams than fit."""
    return ConfigError(
        f"{asked} streams of {_mib(stream_bytes)} do not fit into the memory of {device}; use --max-streams {fit}"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"

"""µ-law and A-law (ITU-T G.711) as tables of 256 samples."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from tympan.messages import Samples


@functools.cache
def mulaw_table() -> Samples:
    """Return float32 `[256]`. Inverted bits: sign, 3 bits of exponent, 4 of mantissa; a bias of 33 in 14 bits."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    exponent, mantissa = code >> 4 & 7, code & 15
    magnitude = ((2 * mantissa + 33 << exponent) - 33) * 4
    return _table(magnitude, code >= 128)


@functools.cache
def alaw_table() -> Samples:
    """Return float32 `[256]`. Alternate bits inverted: sign, 3-bit exponent, 4-bit mantissa; exponent 0 is linear."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    offset = np.where(exponent == 0, 1, 33)
    magnitude = (2 * mantissa + offset << np.maximum(exponent - 1, 0)) * 8
    return _table(magnitude, code < 128)


def _table(magnitude: npt.NDArray[np.int32], negative: npt.NDArray[np.bool_]) -> Samples:
    table: Samples = (np.where(negative, -magnitude, magnitude) / 32768).astype(np.float32)
    table.setflags(write=False)
    return table

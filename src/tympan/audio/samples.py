"""Samples as integers and as floats. Needs nothing but numpy: engines use it on machines that decode no audio."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from tympan.messages import Pcm, Samples

_SIXTEEN_BITS = np.float32(1 / (1 << 15))


def as_float(pcm: Pcm) -> Samples:
    """Float32 of the same shape; floats are returned as they are."""
    return cast(Samples, pcm * _SIXTEEN_BITS if pcm.dtype == np.int16 else pcm)


def put_as_float(pcm: Pcm, into: Samples) -> None:
    """The same, into an array of that shape."""
    if pcm.dtype == np.int16:
        np.multiply(pcm, _SIXTEEN_BITS, out=into)
    else:
        into[:] = pcm


def as_integers(pcm: Pcm) -> npt.NDArray[np.int16]:
    """16-bit integers of the same shape, to the nearest; what is outside [-1, 1] is clipped."""
    if pcm.dtype == np.int16:
        return cast(npt.NDArray[np.int16], pcm)
    values: npt.NDArray[np.int16] = np.clip(np.rint(pcm / _SIXTEEN_BITS), -(1 << 15), (1 << 15) - 1).astype(np.int16)
    return values

"""Conversion between integer and float samples; imports only numpy, for machines that decode no audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from tympan.messages import Pcm, Samples

_SIXTEEN_BITS = np.float32(1 / (1 << 15))


def as_float(pcm: Pcm) -> Samples:
    """Return float32 of the same shape; floats are returned unchanged."""
    return cast(Samples, pcm * _SIXTEEN_BITS if pcm.dtype == np.int16 else pcm)


def join_as_float(frames: Sequence[Pcm], into: Samples) -> None:
    """Write frames of equal length to the rows of ``into [len(frames), samples]`` as float32."""
    if not frames:
        return
    flat = into.reshape(-1)
    if len({frame.dtype for frame in frames}) > 1:
        frames = [as_float(frame) for frame in frames]
    if frames[0].dtype == np.int16:
        np.multiply(np.concatenate(frames), _SIXTEEN_BITS, out=flat)
    else:
        np.concatenate(frames, out=flat)


def as_integers(pcm: Pcm) -> npt.NDArray[np.int16]:
    """Return int16 of the same shape, rounded; values outside [-1, 1] are clipped."""
    if pcm.dtype == np.int16:
        return cast(npt.NDArray[np.int16], pcm)
    values: npt.NDArray[np.int16] = np.clip(np.rint(pcm / _SIXTEEN_BITS), -(1 << 15), (1 << 15) - 1).astype(np.int16)
    return values

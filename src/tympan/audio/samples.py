"""Samples as integers and as floats. Needs nothing but numpy: engines use it on machines that decode no audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from tympan.messages import Pcm, Samples

_SIXTEEN_BITS = np.float32(1 / (1 << 15))


def as_float(pcm: Pcm) -> Samples:
    """Float32 of the same shape; floats are returned as they are."""
    return cast(Samples, pcm * _SIXTEEN_BITS if pcm.dtype == np.int16 else pcm)


def join_as_float(frames: Sequence[Pcm], into: Samples) -> None:
    """Write frames of equal length to the rows of ``into [len(frames), samples]`` as float32, in a few calls for all."""
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
    """16-bit integers of the same shape, to the nearest; what is outside [-1, 1] is clipped."""
    if pcm.dtype == np.int16:
        return cast(npt.NDArray[np.int16], pcm)
    values: npt.NDArray[np.int16] = np.clip(np.rint(pcm / _SIXTEEN_BITS), -(1 << 15), (1 << 15) - 1).astype(np.int16)
    return values

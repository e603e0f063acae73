"""Rotary position embedding of interleaved pairs, computed in float32 (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines ``[B, 1, T, D]`` float32; within a pair only the sign of the sine differs."""

    cos: Tensor
    sin: Tensor


def frequencies(head_dimension: int, max_period: float) -> Tensor:
    """Return the angular frequency of each pair, ``[D / 2]`` float32."""
    pairs = torch.arange(head_dimension // 2, dtype=torch.float32)
    return torch.exp(pairs * (-math.log(max_period) * 2 / head_dimension))


def rotation(positions: Tensor, frequency: Tensor) -> Rotation:
    """Return the rotation at ``positions [B, T]`` int64; exact below 2**24 steps (7 days at 25 Hz)."""
    angle = positions.to(torch.float32)[:, None, :, None] * frequency
    cos, sin = torch.cos(angle), torch.sin(angle)
    return Rotation(torch.stack((cos, cos), dim=-1).flatten(-2), torch.stack((-sin, sin), dim=-1).flatten(-2))


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate the pairs ``(x[2i], x[2i + 1])`` of ``x [B, H, T, D]``; the result has the dtype of ``x``."""
    wide = x.float()
    swapped = wide.reshape(*x.shape[:-1], -1, 2).flip(-1).reshape(x.shape)
    return (wide * by.cos + swapped * by.sin).to(x.dtype)

"""Choosing a token: greedy, or by the Gumbel-max trick with noise that depends on the stream alone.

The noise of a logit is a hash of (seed, position, token), so a stream draws the same tokens whatever batch it is in.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Murmur3's 32-bit finaliser on int64 tensors (public domain, A. Appleby)."""
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def gumbel_noise(seed: Tensor, position: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise ``[B, size]`` float32 for ``seed [B]`` and ``position [B]`` int64."""
    stream = _mix((seed ^ (seed >> 32)) & _MASK)
    step = _mix((stream + position * 0x9E3779B9) & _MASK)
    token = torch.arange(size, device=seed.device)
    bits = _mix((step[:, None] + token * 0x27D4EB2F) & _MASK)
    uniform = ((bits >> 8).to(torch.float32) + 0.5) * 2.0**-24
    return -torch.log(-torch.log(uniform))


def choose(logits: Tensor, temperature: float, seed: Tensor, position: Tensor) -> Tensor:
    """One token per row of ``logits [B, V]`` float32: ``[B]`` int64. A temperature of 0 takes the largest."""
    if temperature <= 0:
        return logits.argmax(dim=-1)
    noise = gumbel_noise(seed, position, logits.shape[-1])
    return (logits / temperature + noise).argmax(dim=-1)


def probability_of(token: Tensor, logits: Tensor) -> Tensor:
    """The model's own probability (temperature 1) of ``token [B]``: ``[B]`` float32."""
    return torch.softmax(logits, dim=-1).gather(-1, token[:, None])[:, 0]

"""Sampling of a token: greedy, or by the Gumbel-max trick with noise that depends on the stream alone.

The noise of a logit is a hash of seed, position and token, so that a stream draws the same tokens in any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _hash32(x: Tensor) -> Tensor:
    """Murmur3's 32-bit finalizer on int64 tensors (public domain, A. Appleby)."""
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def gumbel_noise(seed: Tensor, position: Tensor, size: int) -> Tensor:
    """Return standard Gumbel noise ``[B, size]`` float32 for ``seed [B]`` and ``position [B]`` int64."""
    stream = _hash32((seed ^ (seed >> 32)) & _MASK)
    step = _hash32((stream + position * 0x9E3779B9) & _MASK)
    token = torch.arange(size, device=seed.device)
    bits = _hash32((step[:, None] + token * 0x27D4EB2F) & _MASK)
    uniform = ((bits >> 8).to(torch.float32) + 0.5) * 2.0**-24
    return -torch.log(-torch.log(uniform))


def sample_token(logits: Tensor, temperature: float, seed: Tensor, position: Tensor) -> Tensor:
    """Sample one token per row.

    Args:
        logits: ``[B, V]`` float32.
        temperature: Divides the logits; 0 selects the largest logit.
        seed: ``[B]`` int64.
        position: ``[B]`` int64.

    Returns:
        Tokens ``[B]`` int64.
    """
    if temperature <= 0:
        return logits.argmax(dim=-1)
    noise = gumbel_noise(seed, position, logits.shape[-1])
    return (logits / temperature + noise).argmax(dim=-1)


def token_probability(token: Tensor, logits: Tensor) -> Tensor:
    """Return the softmax probability ``[B]`` float32 of ``token [B]``, at temperature 1."""
    return torch.softmax(logits, dim=-1).gather(-1, token[:, None])[:, 0]

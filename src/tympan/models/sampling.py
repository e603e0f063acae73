"""Sampling of a token: greedy, or by the Gumbel-max trick with noise that depends on the stream alone.

The noise of a logit is a hash of seed, position and token, so that a stream draws the same tokens in any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

RETRY_SEED = -2
"""Seed of a stream that runs again because its audio gave no word: it samples with at least `RETRY_TEMPERATURE`, and
the same audio gives the same words in any batch and on any day.
"""
RETRY_TEMPERATURE = 0.4  # the most that Kyutai's maintainers recommend against a model that stays silent

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
        temperature: Divides the logits; 0 selects the largest logit. Rows with `RETRY_SEED` have one of at least
            `RETRY_TEMPERATURE`.
        seed: ``[B]`` int64.
        position: ``[B]`` int64.

    Returns:
        Tokens ``[B]`` int64.
    """
    retried = seed == RETRY_SEED
    if temperature <= 0 and seed.device.type == "cpu" and not retried.any():  # on a GPU this test would wait for it
        return logits.argmax(dim=-1)
    divisor = torch.where(retried, max(temperature, RETRY_TEMPERATURE), temperature if temperature > 0 else 1.0)
    noise = gumbel_noise(seed, position, logits.shape[-1])
    sampled = (logits / divisor[:, None] + noise).argmax(dim=-1)
    return sampled if temperature > 0 else torch.where(retried, sampled, logits.argmax(dim=-1))


def token_probability(token: Tensor, logits: Tensor) -> Tensor:
    """Return the softmax probability ``[B]`` float32 of ``token [B]``, at temperature 1."""
    return torch.softmax(logits, dim=-1).gather(-1, token[:, None])[:, 0]

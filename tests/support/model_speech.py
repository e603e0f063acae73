"""Real speech for the model tests, concatenated from the clips of the `pytest-audioeval` package."""

from __future__ import annotations

from functools import cache

import numpy as np
import soxr
import torch
from pytest_audioeval.samples.registry import SampleLang, SampleRegistry
from torch import Tensor

RATE = 24_000
FRAME = 1920


@cache
def _clips() -> list[np.ndarray]:
    """Return English and French clips at the sample rate of the codec."""
    registry = SampleRegistry()
    samples = [*registry.by_lang(SampleLang.EN), *registry.by_lang(SampleLang.FR)]
    return [soxr.resample(sample.audio_numpy(), sample.sample_rate, RATE).astype(np.float32) for sample in samples]


def speech(frames: int, seed: int = 0) -> Tensor:
    """Return ``[frames, 1920]`` float32: clips in random order at random volumes, separated by room noise."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < frames * FRAME:
        clip = _clips()[rng.integers(len(_clips()))]
        parts.append(clip * rng.uniform(0.3, 3.0))
        parts.append(rng.normal(0, 0.001, rng.integers(1000, 20_000)))
    samples = np.concatenate(parts)[: frames * FRAME].clip(-1, 1)
    return torch.from_numpy(samples.astype(np.float32)).view(frames, FRAME)

"""The ring without kernels on a GPU, and the ring of 8-bit floats."""

from __future__ import annotations

import pytest
import torch
from support.model_speech import speech

from tympan.engine.kyutai.loader import quantize
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.layers.attention import FP8, Ring, attend, attend_gathered, from_cache, to_cache, window, write
from tympan.models.layers.fp8 import Fp8Linear
from tympan.models.lm import LM


@pytest.mark.parametrize("dtype", [torch.float32, FP8], ids=str)
@pytest.mark.parametrize("steps", [1, 2])
def test_attend_gathered(dtype: torch.dtype, steps: int) -> None:
    torch.manual_seed(0)
    ring = Ring.empty(1, 4, 2, 20, 8, device=torch.device("cpu"), dtype=dtype)
    rows = torch.tensor([3, 0, 1])
    for last in range(steps - 1, 45, 7):
        positions = torch.tensor([last, last + 3, 100 + last])[:, None] - steps + 1 + torch.arange(steps)
        seen = window(rows, positions, ring)
        query, key, value = torch.randn(3, 3, 2, steps, 8)
        write(ring, 0, key, value, seen)
        scales = (None, None) if ring.scales is None else ring.scales[:, 0].unbind()
        gathered = attend_gathered(query, ring.keys[0], ring.values[0], scales, seen)
        torch.testing.assert_close(gathered, attend(query, ring, 0, seen))


def test_fp8_conversion() -> None:
    scale = torch.tensor([0.5, 2.0])
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(from_cache(to_cache(x, FP8, scale), scale), x, rtol=2**-4, atol=2**-8)
    assert from_cache(to_cache(torch.full((2, 1, 1), 1e6), FP8, scale), scale).flatten().tolist() == [224.0, 896.0]


def logits_of(lm: LM, codes: torch.Tensor, dtype: torch.dtype, tokens: torch.Tensor | None = None) -> torch.Tensor:
    """Return the logits of every step of one stream, with ``tokens`` as its past; by default its own."""
    state = lm.init_state(1, cache_dtype=dtype, scales=lm.measure_scales(codes[:50]) if dtype == FP8 else None)
    rows, logits = torch.tensor([0]), []
    for index, frame in enumerate(codes):
        logits.append(lm.step(frame[None], state, rows).logits[0])
        if tokens is not None:
            state.token[0] = tokens[index]
    return torch.stack(logits)


def test_fp8_ring() -> None:
    """Past the end of a ring of 100 frames, with the same past tokens."""
    checkpoint = open_checkpoint("random:tiny")
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    codec, rows = mimi.init_state(1), torch.tensor([0])
    codes = torch.cat([mimi.encode(frame[None], codec, rows) for frame in speech(130)])
    expected = logits_of(lm, codes, torch.float32)
    found = logits_of(lm, codes, FP8, expected.argmax(dim=-1))
    error = (found - expected).norm() / expected.norm()
    assert 0.0 < error < 0.05
    assert (found.argmax(dim=-1) == expected.argmax(dim=-1)).float().mean() > 0.9


def test_fp8_linear() -> None:
    torch.manual_seed(0)
    layer, x = Fp8Linear(torch.randn(32, 64)), torch.randn(3, 5, 64)
    x[0] *= 1000
    reference = x @ (layer.weight.float() * layer.scale.t()).t()
    assert layer(x).shape == (3, 5, 32)
    assert (layer(x) - reference)[0].norm() / reference[0].norm() < 0.05
    assert (layer(x) - reference)[1].norm() / reference[1].norm() < 0.05
    torch.testing.assert_close(layer(x[1:2]), layer(x)[1:2])


def test_fp8_model() -> None:
    checkpoint = open_checkpoint("random:tiny")
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    codec, rows = mimi.init_state(1), torch.tensor([0])
    codes = torch.cat([mimi.encode(frame[None], codec, rows) for frame in speech(60)])
    expected = logits_of(lm, codes, torch.float32)
    quantize(lm, "fp8")
    found = logits_of(lm, codes, torch.float32, expected.argmax(dim=-1))
    assert 0 < (found - expected).norm() / expected.norm() < 0.15

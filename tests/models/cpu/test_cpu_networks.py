"""The networks that ONNX Runtime executes compute what their definitions in PyTorch compute."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from support.model_speech import speech

from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu.linear import CpuLinear, WeightType, pack
from tympan.models.cpu.networks import run_lm_on_cpu, run_mimi_on_cpu
from tympan.models.layers.attention import FP8
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder


@pytest.fixture(scope="module")
def mimi() -> MimiEncoder:
    mimi = open_checkpoint("random:tiny").mimi()
    run_mimi_on_cpu(mimi)
    return mimi


def make_lm(kind: WeightType = "f32") -> LM:
    lm = open_checkpoint("random:tiny").lm(dtype=torch.float32)
    run_lm_on_cpu(lm, kind)
    return lm


def test_codec_equals_definition(mimi: MimiEncoder) -> None:
    """Past the end of the ring, in a slot that a stream had before."""
    defined = open_checkpoint("random:tiny").mimi()
    rows = torch.tensor([1, 0])
    states = [network.init_state(2) for network in (defined, mimi)]
    for seed in (1, 0):
        for state in states:
            state.reset(rows)
        for frame in speech(40, seed):
            frames = torch.stack((frame, frame.flip(0)))
            expected, found = (
                network.latent(frames, state, rows) for network, state in zip((defined, mimi), states, strict=True)
            )
            # ONNX Runtime's ELU computes exp(x) - 1, which is less precise in near silence than PyTorch's expm1(x).
            assert ((found - expected).norm(dim=1) / expected.norm(dim=1) < 5e-3).all()


@pytest.mark.parametrize(
    ("kind", "cache", "largest"),
    [
        ("f32", torch.float32, 1e-5),
        ("f32", torch.float16, 0.01),
        ("f32", torch.bfloat16, 0.05),
        ("f32", FP8, 0.05),
        ("int8", torch.float32, 0.03),
        ("int8", torch.float16, 0.03),
    ],
    ids=str,
)
def test_lm_approximates_definition(kind: WeightType, cache: torch.dtype, largest: float) -> None:
    """With the same past tokens, past the end of the ring of 100 frames."""
    defined = open_checkpoint("random:tiny").lm(dtype=torch.float32)
    lm = make_lm(kind)
    codes = torch.randint(0, 64, (110, 1, 8), generator=torch.Generator().manual_seed(0))
    scales = defined.measure_scales(codes[:50, 0]) if cache == FP8 else None
    states = [network.init_state(1, cache_dtype=cache, scales=scales) for network in (defined, lm)]
    rows = torch.tensor([0])
    for frame in codes:
        expected, found = (
            network.step(frame, state, rows) for network, state in zip((defined, lm), states, strict=True)
        )
        states[1].token.copy_(states[0].token)
        assert (found.logits - expected.logits).norm() / expected.logits.norm() < largest
        torch.testing.assert_close(found.pauses, expected.pauses, rtol=0, atol=0.05)


@pytest.mark.parametrize(("kind", "largest"), [("f32", 1e-6), ("int8", 0.01), ("int4", 0.12)])
@pytest.mark.parametrize("shape", [(64, 256), (10, 176), (7, 33)], ids=str)
def test_product_error(kind: WeightType, largest: float, shape: tuple[int, int]) -> None:
    """Also for inputs with a few large entries, and sizes that are no multiple of a block."""
    torch.manual_seed(0)
    weight, x = torch.randn(shape), torch.randn(3, 5, shape[1])
    x[1, :, 0] = 100
    layer = CpuLinear(pack(weight, kind))
    expected = x.double() @ weight.double().t()
    found = layer(x)
    assert found.shape == (3, 5, shape[0])
    for row in range(3):
        assert (found - expected)[row].norm() / expected[row].norm() < largest


def test_invalid_stream_does_not_affect_later_stream(mimi: MimiEncoder) -> None:
    """Keys and values that are not numbers remain in the slot's ring, where the next stream must not read them."""
    rows, lm = torch.tensor([0]), make_lm()
    results = []
    for first in (torch.zeros(1, 1920), torch.full((1, 1920), torch.nan)):
        codec, words = mimi.init_state(1), lm.init_state(1)
        for _ in range(3):
            mimi.latent(first, codec, rows)
        words.ring.keys.fill_(float(first[0, 0]))
        codec.reset(rows)
        words.reset(rows)
        results.append([lm.step(mimi.encode(frame[None], codec, rows), words, rows).logits for frame in speech(3)])
    assert torch.equal(torch.cat(results[0]), torch.cat(results[1]))


def test_weights_move_into_sessions() -> None:
    lm = open_checkpoint("random:tiny").lm(dtype=torch.float32)
    stored = sum(parameter.nbytes for name, parameter in lm.named_parameters() if name != "embedding")
    run_lm_on_cpu(lm, "f32")
    assert [name for name, _ in lm.named_parameters()] == ["embedding"]
    assert sum(getattr(part, "size_bytes", 0) for part in lm.modules()) == stored


def test_definition_is_unchanged_by_copy() -> None:
    defined = open_checkpoint("random:tiny").lm(dtype=torch.float32)
    copy = deepcopy(defined)
    run_lm_on_cpu(copy, "int8")
    assert len(defined.transformer.layers) == 2

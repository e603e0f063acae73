"""Streaming equals offline, a new stream ignores old memory, and other slots stay unchanged, module by module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_speech import speech
from torch import Tensor
from torch.nn import functional

from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.config import SeanetConfig
from tympan.models.layers.attention import Ring, attend, make_window, write
from tympan.models.layers.conv import StreamingConv, with_history, with_replicated_history
from tympan.models.layers.rope import frequencies, rotate, rotation
from tympan.models.lm import LM, LMState
from tympan.models.mimi import MimiEncoder, MimiState
from tympan.models.seanet import SeanetEncoder


@pytest.fixture(scope="module")
def mimi() -> MimiEncoder:
    return open_checkpoint("random:tiny").mimi()


@pytest.fixture(scope="module")
def lm() -> LM:
    return open_checkpoint("random:tiny").lm(dtype=torch.float32)


def draw_weights(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3)


def conv1d(conv: StreamingConv, x: Tensor, past: Tensor) -> Tensor:
    """Return PyTorch's convolution of the whole signal ``x [B, T, C]``."""
    weight = conv.weight.view(conv.out_channels, conv.kernel, conv.in_channels).transpose(1, 2)
    signal = torch.cat((past, x), dim=1).transpose(1, 2)
    return functional.conv1d(signal, weight, conv.bias, stride=conv.stride).transpose(1, 2)


@given(
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    whole=st.booleans(),
    slots=st.sampled_from([[3], [3, 1]]),
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
@settings(deadline=None, max_examples=60)
@torch.no_grad()
def test_convolution_equals_offline(kernel: int, stride: int, whole: bool, slots: list[int], chunks: list[int]) -> None:
    kernel = 2 * stride if whole else kernel + stride
    conv = StreamingConv(3, 4, kernel, stride)
    draw_weights(conv)
    x = torch.randn(len(slots), sum(chunks) * stride, 3)
    context, rows = conv.init_context(5, device=torch.device("cpu")).fill_(torch.nan), torch.tensor(slots)
    parts = []
    for index, part in enumerate(x.split([chunk * stride for chunk in chunks], dim=1)):
        fresh = torch.full((len(slots), 1, 1), index == 0)
        parts.append(conv(with_history(part, context, rows, fresh)))
    expected = conv1d(conv, x, torch.zeros(len(slots), kernel - stride, 3))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


@torch.no_grad()
def test_replicated_past() -> None:
    conv = StreamingConv(3, 4, 4, 2, bias=False)
    draw_weights(conv)
    x = torch.randn(2, 6, 3)
    context, rows = conv.init_context(2, device=torch.device("cpu")), torch.tensor([1, 0])
    fresh = torch.ones(2, 1, 1, dtype=torch.bool)
    first = conv(with_replicated_history(x[:, :2], context, rows, fresh))
    rest = conv(with_replicated_history(x[:, 2:], context, rows, ~fresh))
    expected = conv1d(conv, x, x[:, :1].expand(-1, 2, -1))
    torch.testing.assert_close(torch.cat((first, rest), dim=1), expected)


@torch.no_grad()
def test_seanet_equals_offline() -> None:
    seanet = SeanetEncoder(SeanetConfig(dimension=16, filters=4))
    for parameter in seanet.parameters():
        parameter.normal_(0, 0.2)
    audio = speech(12).reshape(1, -1, 1)
    rows, device = torch.tensor([0]), torch.device("cpu")
    start, later = torch.ones(1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, dtype=torch.bool)
    whole = seanet(audio, seanet.init_contexts(1, device=device), rows, start)
    contexts = seanet.init_contexts(1, device=device)
    frames = audio.split(1920, dim=1)
    parts = [seanet(frame, contexts, rows, later if index else start) for index, frame in enumerate(frames)]
    # Matrix libraries sum each shape in another order, so rounding errors are relative to the largest values.
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("steps", [1, 2])
@torch.no_grad()
def test_attention_equals_masked_attention(steps: int) -> None:
    """Past the end of the ring, and with the window that results from writing all steps before attending."""
    heads, dimension, capacity, total = 2, 8, 6, 20
    q, k, v = torch.randn(3, 1, heads, total, dimension)
    ring = Ring.empty(1, 3, heads, capacity, dimension, device=torch.device("cpu"), dtype=torch.float32)
    rows, parts = torch.tensor([2]), []
    for start in range(0, total, steps):
        now = slice(start, start + steps)
        seen = make_window(rows, torch.arange(total)[None, now], ring)
        write(ring, 0, k[:, :, now], v[:, :, now], seen)
        parts.append(attend(q[:, :, now], ring, 0, seen))
    query, key = torch.arange(total)[:, None], torch.arange(total)
    newest = query // steps * steps + steps - 1
    mask = (key <= query) & (key > newest - capacity)
    expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(torch.cat(parts, dim=2), expected)


def test_rotation_is_relative() -> None:
    """The product of a rotated query and key depends only on the distance of their positions."""
    frequency = frequencies(8, 10_000.0)
    q, k = torch.randn(2, 1, 1, 1, 8)

    def product(query: int, key: int) -> Tensor:
        turned = [rotate(x, rotation(torch.tensor([[at]]), frequency)) for x, at in ((q, query), (k, key))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product(7, 3), product(107, 103))
    assert not torch.isclose(product(7, 3), product(7, 5))


def tensors(state: MimiState | LMState) -> Iterator[Tensor]:
    """Yield the tensors of a state per slot, slots first."""
    yield state.position
    yield from (ring.transpose(0, 1) for ring in (state.ring.keys, state.ring.values))
    if isinstance(state, MimiState):
        yield from (*state.contexts, state.downsample)
    else:
        yield state.token


def fill(state: MimiState | LMState, value: float) -> None:
    for tensor in tensors(state):
        tensor.fill_(value if tensor.is_floating_point() else 77)


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e30, 0.0])
def test_reset_slot_ignores_old_memory(mimi: MimiEncoder, lm: LM, garbage: float) -> None:
    rows = torch.tensor([1])
    results = []
    for value in (0.0, garbage):
        codec, words = mimi.init_state(2), lm.init_state(2)
        for state in (codec, words):
            fill(state, value)
            state.reset(rows)
        steps = [lm.step(mimi.encode(frame[None], codec, rows), words, rows) for frame in speech(120)]
        results.append(torch.stack([step.logits for step in steps]))
    assert results[1].isfinite().all()
    assert torch.equal(*results)


def test_step_leaves_other_slots_unchanged(mimi: MimiEncoder, lm: LM) -> None:
    codec, words, rows = mimi.init_state(4), lm.init_state(4), torch.tensor([2, 0])
    for state in (codec, words):
        fill(state, 5.0)
        state.reset(rows)
    for frame in speech(4):
        lm.step(mimi.encode(frame.expand(2, -1), codec, rows), words, rows)
    for state in (codec, words):
        for tensor in tensors(state):
            kept = 5.0 if tensor.is_floating_point() else 77
            assert (tensor[[1, 3]] == kept).all()
            assert not (tensor[[0, 2]] == kept).all()

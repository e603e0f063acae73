"""The small kernels and the whole tiny model, compared with plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tympan.models import kernels
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.randomized import synthetic_voice
from tympan.models.config import QuantizerConfig
from tympan.models.kernels.fused import choose_token, rms_norm, store_initial_step, sum_embeddings
from tympan.models.kernels.nearest import MOST_ROWS, nearest_codes
from tympan.models.layers.attention import FP8, as_indexable
from tympan.models.layers.quantizer import ResidualQuantizer
from tympan.models.layers.transformer import RMSNorm
from tympan.models.sampling import RETRY_SEED, sample_token, token_probability

CPU = torch.device("cpu")


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda device: False)


def test_interpreter_is_usable() -> None:
    assert kernels.usable(CPU)


@pytest.mark.parametrize(("rows", "width"), [(1, 64), (5, 600), (300, 8)])
def test_sum_embeddings(rows: int, width: int) -> None:
    card, codebooks = 9, 4
    table = torch.randn(codebooks * card + 20, width)
    codes, text = torch.randint(0, card, (rows, codebooks)), torch.randint(0, 20, (rows,))
    expected = table[codebooks * card + text] + sum(table[book * card + codes[:, book]] for book in range(codebooks))
    torch.testing.assert_close(sum_embeddings(codes, text, table, card, torch.float32), expected)


@pytest.mark.parametrize("shape", [(1, 1, 64), (7, 2, 96), (300, 1, 16)])
@pytest.mark.usefixtures("without_kernels")
def test_rms_norm(shape: tuple[int, ...]) -> None:
    norm, x = RMSNorm(shape[-1]), torch.randn(shape)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(rms_norm(x, norm.weight, norm.epsilon), norm(x))


@pytest.mark.parametrize(("rows", "width"), [(1, 256), (9, 4000), (512, 12)])
def test_choose_largest(rows: int, width: int) -> None:
    logits = torch.randn(rows, width) * 5
    logits[0, [3, 7]] = 100.0  # of equal logits, the first is chosen
    zero = torch.zeros(rows, dtype=torch.int64)
    token, probability = choose_token(logits, zero, zero, 0.0)
    assert torch.equal(token, logits.argmax(dim=-1))
    assert token[0] == 3
    expected = torch.softmax(logits, dim=-1).gather(-1, token[:, None])[:, 0]
    torch.testing.assert_close(probability, expected)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # by NumPy in the interpreter
@pytest.mark.parametrize("invalid", [[5], [0, 1, 2], list(range(4000))], ids=len)
def test_choose_largest_nan(invalid: list[int]) -> None:
    logits = torch.randn(3, 4000)
    logits[1, invalid] = torch.nan
    zero = torch.zeros(3, dtype=torch.int64)
    token, probability = choose_token(logits, zero, zero, 0.0)
    assert 0 <= int(token[1]) < 4000
    assert probability.isnan().tolist() == [False, True, False]
    assert torch.equal(token[::2], logits[::2].argmax(dim=-1))


@pytest.mark.parametrize("temperature", [0.0, 0.25, 0.7])
def test_choose_sampled(temperature: float) -> None:
    """Rows of all kinds side by side draw the tokens of PyTorch's definition, and greedy ones remain greedy."""
    logits = torch.randn(40, 1000) * 2
    seed = torch.tensor([0, 1, RETRY_SEED, 12_345_678_901, RETRY_SEED]).repeat(8)
    position = torch.arange(40) * 977
    token, probability = choose_token(logits, seed, position, temperature)
    assert torch.equal(token, sample_token(logits, temperature, seed, position))
    torch.testing.assert_close(probability, token_probability(token, logits))
    retried = seed == RETRY_SEED
    assert (token != logits.argmax(dim=-1))[retried].any()
    assert bool((token != logits.argmax(dim=-1))[~retried].any()) is (temperature > 0)


def test_choose_from_shared_row() -> None:
    logits, seed = torch.randn(1, 300), torch.tensor([0, RETRY_SEED, 5])
    token, _ = choose_token(logits.expand(3, -1), seed, torch.zeros_like(seed), 0.8)
    assert torch.equal(token, sample_token(logits.expand(3, -1), 0.8, seed, torch.zeros_like(seed)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, FP8], ids=str)
def test_store_start(dtype: torch.dtype) -> None:
    """Entry 0 of the slots of new streams is written bit for bit; every other byte of the rings stays unchanged."""
    layers, slots, heads, capacity, width = 2, 5, 4, 6, 16
    keys, values = (torch.randn(layers, slots, heads, capacity, width).to(dtype) for _ in range(2))
    start_keys, start_values = (torch.randn(layers, heads, width).to(dtype) for _ in range(2))
    expected = [as_indexable(cache).clone() for cache in (keys, values)]
    for cache, start in zip(expected, (start_keys, start_values), strict=True):
        for slot in (4, 0):
            cache[:, slot, :, 0] = as_indexable(start)
    frames, rows = torch.tensor([7, 0, 1, 0]), torch.tensor([2, 4, 1, 0])
    store_initial_step(frames, rows, keys, values, start_keys, start_values)
    assert torch.equal(as_indexable(keys), expected[0])
    assert torch.equal(as_indexable(values), expected[1])


@pytest.mark.parametrize("rows", [1, 2, MOST_ROWS])
@pytest.mark.parametrize("codebooks", [1, 4])
@pytest.mark.usefixtures("without_kernels")
def test_nearest_codes(rows: int, codebooks: int) -> None:
    torch.manual_seed(rows)
    config = QuantizerConfig(codebooks=4, bins=100, dimension=16)
    stack = ResidualQuantizer(16, 4, config)
    with torch.no_grad():
        stack.centroids.normal_()
        stack.centroids[0, 5] = stack.centroids[0, 40]  # of equal bins, the lower is chosen
        stack.half_norms.copy_(stack.centroids.square().sum(dim=-1) / 2)
        stack.input_proj.weight.copy_(torch.eye(16))
        x = torch.randn(rows, 16)
        x[0] = stack.centroids[0, 5]
        expected = torch.stack(stack(x, codebooks), dim=1)
        assert torch.equal(nearest_codes(x, stack.centroids, stack.half_norms, codebooks), expected)
    assert expected[0, 0] == 5


def run_tiny(frames: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes and tokens of two streams whose rings wrap; the second stream is replaced by a new one."""
    checkpoint = open_checkpoint("random:tiny")
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    codec, words = mimi.init_state(4), lm.init_state(4)
    codec.reset(rows, torch.tensor([22, 22]))
    words.reset(rows, torch.tensor([97, 97]))
    voice = synthetic_voice(2 * frames * 1920, 24_000, torch.Generator().manual_seed(3)).view(2, frames, -1)
    codes, tokens = [], []
    for frame in range(frames):
        if frame == 2:
            codec.reset(rows[1:])
            words.reset(rows[1:])
        codes.append(mimi.encode(voice[:, frame].contiguous(), codec, rows))
        tokens.append(lm.step(codes[-1], words, rows).token)
    return torch.cat(codes), torch.cat(tokens)


def test_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([3, 1])
    found = run_tiny(5, rows)
    monkeypatch.setattr(kernels, "usable", lambda device: False)
    expected = run_tiny(5, rows)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert len(set(expected[1].tolist())) > 3

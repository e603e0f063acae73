"""Sampling follows the softmax, with noise that depends on seed, position and token alone."""

from __future__ import annotations

import torch

from tympan.models.sampling import RETRY_SEED, RETRY_TEMPERATURE, gumbel_noise, sample_token, token_probability


def test_zero_temperature_is_greedy() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [1.0, 0.0, -1.0]])
    zero = torch.zeros(2, dtype=torch.int64)
    assert sample_token(logits, 0.0, zero, zero).tolist() == [1, 0]


def test_noise_is_independent_of_batch() -> None:
    seeds, positions = torch.tensor([5, 6, 7]), torch.tensor([0, 40_000, 3])
    together = gumbel_noise(seeds, positions, 100)
    for row in range(3):
        assert torch.equal(together[row : row + 1], gumbel_noise(seeds[row : row + 1], positions[row : row + 1], 100))
    assert together.isfinite().all()


def test_samples_follow_softmax() -> None:
    count, temperature = 20_000, 0.5
    logits = torch.tensor([0.0, 0.5, 1.0, -1.0])
    seed = torch.full((count,), 12_345_678_901)
    tokens = sample_token(logits.expand(count, -1), temperature, seed, torch.arange(count))
    found = torch.bincount(tokens, minlength=4) / count
    torch.testing.assert_close(found, torch.softmax(logits / temperature, -1), rtol=0, atol=0.015)


def test_retried_rows_are_sampled_and_the_others_not() -> None:
    """Each row's token is the one that it has alone."""
    logits = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    seed, position = torch.tensor([3, RETRY_SEED]).repeat(200), torch.arange(400)
    token = sample_token(logits, 0.0, seed, position)
    greedy = logits.argmax(dim=-1)
    assert torch.equal(token[::2], greedy[::2])
    assert (token[1::2] != greedy[1::2]).any()
    for row in range(400):
        one = slice(row, row + 1)
        assert sample_token(logits[one], 0.0, seed[one], position[one]) == token[row]
    expected = sample_token(logits, RETRY_TEMPERATURE, seed, position)
    assert torch.equal(token[1::2], expected[1::2])


def test_noise_is_uncorrelated() -> None:
    seeds, positions = torch.arange(200).repeat_interleave(50), torch.arange(50).repeat(200)
    noise = gumbel_noise(seeds, positions, 16)
    assert noise.unique(dim=0).shape[0] == noise.shape[0]
    grid = noise[:, 0].view(200, 50)
    for one, other in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        correlation = torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]
        assert abs(float(correlation)) < 0.05


def test_token_probability() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    token = torch.tensor([1])
    torch.testing.assert_close(token_probability(token, logits), torch.softmax(logits, -1)[:, 1])

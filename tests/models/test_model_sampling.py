"""Sampling follows the softmax, with noise that depends on seed, position and token alone."""

from __future__ import annotations

import torch

from tympan.models.sampling import gumbel_noise, sample_token, token_probability


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

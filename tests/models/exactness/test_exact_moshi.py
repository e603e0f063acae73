"""Codes, tokens and pause probabilities equal those of the moshi package, for checkpoints in Kyutai's layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.exactness import Report, compare_codes, compare_tokens
from support.model_speech import speech
from support.moshi_models import Shape, moshi_lm, moshi_mimi, run_moshi, write_kyutai

from tympan.models.checkpoints.load import open_checkpoint

THIRTY_SECONDS = 375


def compare(folder: Path, shape: Shape, frames: int) -> Report:
    mimi = moshi_mimi(shape)
    lm = moshi_lm(shape, mimi.cardinality)
    write_kyutai(folder, shape, mimi, lm)
    audio = speech(frames, seed=shape.seed)
    expected = run_moshi(mimi, lm, audio)
    checkpoint = open_checkpoint(str(folder))
    report = Report()
    compare_codes(checkpoint.mimi(), audio, expected.codes, report)
    compare_tokens(checkpoint.lm(dtype=torch.float32), expected.codes, expected.tokens, expected.pauses, report)
    return report


@pytest.mark.parametrize("seed", [0, 1])
def test_first_seconds(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), frames=120)
    assert report.distinct_codes > 20
    assert report.distinct_tokens > 20


@pytest.mark.exactness
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(2, 22))
def test_thirty_seconds(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), THIRTY_SECONDS)
    print(report)
    assert report.frames == THIRTY_SECONDS
    assert report.distinct_codes > 40
    assert report.distinct_tokens > 40


@pytest.mark.exactness
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [100, 101])
def test_full_size_codec(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed, full_codec=True), THIRTY_SECONDS)
    print(report)
    assert report.distinct_codes > 100

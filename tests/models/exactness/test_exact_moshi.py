"""Codes, tokens and pause probabilities equal the moshi package's, through checkpoints on disk in Kyutai's layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_exactness import Report, compare_codes, compare_tokens
from model_moshi import run_moshi
from model_references import Shape, moshi_lm, moshi_mimi, write_kyutai
from model_speech import speech

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
def test_first_seconds_equal_moshi(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), frames=120)
    assert report.distinct_codes > 20
    assert report.distinct_tokens > 20


@pytest.mark.exactness
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(2, 22))
def test_thirty_seconds_equal_moshi(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), THIRTY_SECONDS)
    print(report)
    assert report.frames == THIRTY_SECONDS
    assert report.distinct_codes > 40
    assert report.distinct_tokens > 40


@pytest.mark.exactness
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [100, 101])
def test_full_size_codec_equals_moshi(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed, full_codec=True), THIRTY_SECONDS)
    print(report)
    assert report.distinct_codes > 100

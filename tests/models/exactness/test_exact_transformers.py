"""Codes and tokens equal those of the transformers library, for checkpoints in its layout.

Its codec gives every step of the encoder's transformer a window of 250 steps. Kyutai's servers and this one write both
steps of a frame before either attends, so that codes may differ after 125 frames, and are compared up to there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.exactness import Report, compare_codes, compare_tokens
from support.model_speech import speech
from support.moshi_models import Shape
from support.transformers_models import (
    transformers_codes,
    transformers_generate,
    transformers_model,
    transformers_tokens,
    write_transformers,
)

from tympan.models.checkpoints.load import open_checkpoint

TEN_SECONDS = 125
THIRTY_SECONDS = 375


def compare(folder: Path, shape: Shape, codec_frames: int, frames: int) -> Report:
    model = transformers_model(shape)
    write_transformers(folder, model, parts=shape.seed % 2 == 0)
    checkpoint = open_checkpoint(str(folder))
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    audio = speech(frames, seed=shape.seed)
    codes = transformers_codes(model, audio)
    report = Report()
    compare_codes(mimi, audio[:codec_frames], codes[:codec_frames], report)
    generated = transformers_generate(model, audio[:codec_frames])
    compare_tokens(lm, codes[: len(generated)], generated, None, report)
    compare_tokens(lm, codes, transformers_tokens(model, codes), None, report)
    return report


@pytest.mark.parametrize("seed", [0, 1])
def test_first_seconds(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), codec_frames=50, frames=80)
    assert report.distinct_codes > 20
    assert report.distinct_tokens > 20


@pytest.mark.exactness
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(30, 50))
def test_thirty_seconds(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), TEN_SECONDS, THIRTY_SECONDS)
    print(report)
    assert report.distinct_codes > 30
    assert report.distinct_tokens > 40

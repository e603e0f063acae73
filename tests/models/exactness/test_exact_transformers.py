"""Codes and tokens equal the transformers library's, through checkpoints on disk in its layout.

Its whole-file codec gives every step of the encoder's transformer a full window of 250 steps; Kyutai's servers (and we)
write both steps of a frame before either attends, so after 125 frames the codes may differ and are not compared.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_exactness import Report, compare_codes, compare_tokens
from model_references import Shape
from model_speech import speech
from model_transformers import (
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
def test_first_seconds_equal_transformers(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), codec_frames=50, frames=80)
    assert report.distinct_codes > 20
    assert report.distinct_tokens > 20


@pytest.mark.exactness
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(30, 50))
def test_thirty_seconds_equal_transformers(tmp_path: Path, seed: int) -> None:
    report = compare(tmp_path, Shape.of(seed), TEN_SECONDS, THIRTY_SECONDS)
    print(report)
    assert report.distinct_codes > 30
    assert report.distinct_tokens > 40

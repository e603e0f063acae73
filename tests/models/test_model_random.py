"""``random:`` models: sizes, reproducible weights, and results that vary with the audio."""

from __future__ import annotations

import pytest
import torch
from support.model_speech import speech

from tympan.errors import ModelError
from tympan.models.checkpoints.checkpoint import describe
from tympan.models.checkpoints.load import open_checkpoint


def test_sizes() -> None:
    small, large = describe(open_checkpoint("random:1b")), describe(open_checkpoint("random:2.6b"))
    assert (small.lm_bytes, large.lm_bytes) == (1_978_507_264, 5_234_237_440)
    assert (small.lm_stream_bytes, large.lm_stream_bytes) == (98_304_000, 147_456_000)
    assert 8_192_000 < small.mimi_stream_bytes < 8_192_000 + 50_000
    assert (small.pause_heads, large.pause_heads) == (4, 0)
    assert (small.context_seconds, large.context_seconds) == (60.0, 30.0)
    assert (small.delay_seconds, large.delay_seconds) == (0.5, 2.5)


def test_seed() -> None:
    one, same, other = (open_checkpoint(f"random:tiny{seed}").lm() for seed in ("", "@0", "@1"))
    assert torch.equal(one.embedding, same.embedding)
    assert not torch.equal(one.embedding, other.embedding)


def test_dtypes_round_the_same_weights() -> None:
    exact, rounded = (open_checkpoint("random:tiny").lm(dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for (name, one), (_, other) in zip(exact.named_parameters(), rounded.named_parameters(), strict=True):
        assert torch.equal(one.bfloat16(), other), name


def test_results_vary_with_audio() -> None:
    checkpoint = open_checkpoint("random:tiny")
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    codec, words, rows = mimi.init_state(1), lm.init_state(1), torch.tensor([0])
    codes, tokens, pauses = [], [], []
    for frame in speech(150):
        codes.append(mimi.encode(frame[None], codec, rows)[0])
        output = lm.step(codes[-1][None], words, rows)
        tokens.append(int(output.token))
        pauses.append(output.pauses[0])
    assert min(len(set(column.tolist())) for column in torch.stack(codes).t()) > 10
    assert len(set(tokens)) > 30
    separators = sum(token in {0, 3} for token in tokens)
    assert 30 < separators < 130
    assert (torch.stack(pauses).std(dim=0) > 0.02).all()


@pytest.mark.parametrize("name", ["random:3b", "random:", "random:tiny@x"])
def test_unknown_model(name: str) -> None:
    with pytest.raises(ModelError, match=r"random:1b, random:2\.6b, random:tiny"):
        open_checkpoint(name)

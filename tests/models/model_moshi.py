"""The moshi package's batched streaming loop, as the reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from moshi.models import LMGen, LMModel
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile
from torch import Tensor


@dataclass(frozen=True)
class Reference:
    """codes ``[T, K]``, tokens one per frame, pauses ``[T, heads]``."""

    codes: Tensor
    tokens: list[int]
    pauses: Tensor


@torch.no_grad()
def run_moshi(mimi: MimiModel, lm: LMModel, frames: Tensor) -> Reference:
    """Frame by frame, with the first frame doubled so that its codes are not replaced by the initial tokens."""
    generator = LMGen(lm, use_sampling=False, temp=0.0, temp_text=0.0)
    codes, tokens, pauses = [], [], []
    # The package would compile its norms: slower than these tests, and a warning.
    with no_compile(), mimi.streaming(1), generator.streaming(1):
        for index, frame in enumerate(frames):
            code = mimi.encode(frame[None, None])
            if index == 0:
                generator.step(code)
            result = generator.step_with_extra_heads(code)
            assert result is not None
            out, heads = result
            codes.append(code[0, :, 0].clone())
            tokens.append(int(out[0, 0, 0]))
            pauses.append(torch.tensor([float(head[0, 0, 0]) for head in heads]))
    return Reference(torch.stack(codes), tokens, torch.stack(pauses))

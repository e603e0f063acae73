"""Comparing our streaming loop with a reference's results, frame by frame.

Different BLAS calls round differently, which can flip a near-tie. A difference is a tie only where the two candidates
are closer than 1e-5 of the distance (codes) or 1e-4 (logits). Ties are counted; what follows is compared with the
reference's choice forced. Anything else fails.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

CODE_GAP = 1e-5
LOGIT_GAP = 1e-4
PAUSE_TOLERANCE = 1e-5


@dataclass
class Report:
    """What a comparison covered: a comparison of constants would prove nothing."""

    frames: int = 0
    code_ties: int = 0
    token_ties: int = 0
    distinct_codes: int = 0
    distinct_tokens: int = 0

    def __add__(self, other: Report) -> Report:
        return Report(
            self.frames + other.frames,
            self.code_ties + other.code_ties,
            self.token_ties + other.token_ties,
            min(self.distinct_codes or other.distinct_codes, other.distinct_codes),
            min(self.distinct_tokens or other.distinct_tokens, other.distinct_tokens),
        )


def compare_codes(mimi: MimiEncoder, frames: Tensor, expected: Tensor, report: Report) -> None:
    """Stream ``frames [T, 1920]`` through ``mimi``; the codes must be ``expected [T, K]``."""
    state, rows = mimi.init_state(2), torch.tensor([1])
    codes = []
    for index, frame in enumerate(frames):
        latent = mimi.latent(frame[None], state, rows)
        found = mimi.quantizer(latent, mimi.codebooks)[0]
        if not torch.equal(found, expected[index]):
            report.code_ties += code_ties(mimi, latent, expected[index], index)
        codes.append(found)
    report.frames += len(frames)
    report.distinct_codes = min(len(set(column.tolist())) for column in torch.stack(codes).t())


def code_ties(mimi: MimiEncoder, latent: Tensor, expected: Tensor, frame: int) -> int:
    """Search again with the reference's choices forced; returns the near-ties, fails on anything else."""
    ties = 0
    semantic = mimi.config.quantizer.semantic
    stacks = ((mimi.quantizer.semantic, expected[:semantic]), (mimi.quantizer.acoustic, expected[semantic:]))
    for stack, choices in stacks:
        residual = stack.input_proj(latent)
        for index, choice in enumerate(choices):
            distances = (residual - stack.centroids[index]).double().norm(dim=-1)
            nearest = distances.min()
            gap = float((distances[choice] - nearest) / nearest)
            assert gap < CODE_GAP, f"frame {frame}, codebook {index}: the reference's code is {gap:.2g} further away"
            ties += bool(distances.argmin() != choice)
            residual = residual - stack.centroids[index, choice]
    # The exact nearest may be the reference's: then our float32 search chose the other of two that are as near.
    return max(ties, 1)


def compare_tokens(lm: LM, codes: Tensor, tokens: list[int], pauses: Tensor | None, report: Report) -> None:
    """Stream ``codes [T, K]`` through ``lm``; tokens ``[T]`` and pauses ``[T, heads]`` must be the reference's."""
    state, rows = lm.init_state(3), torch.tensor([1])
    counts: Counter[int] = Counter()
    for index, (frame, expected) in enumerate(zip(codes, tokens, strict=True)):
        output = lm.step(frame[None], state, rows)
        found = int(output.token)
        if found != expected:
            gap = float(output.logits[0, found] - output.logits[0, expected])
            assert gap < LOGIT_GAP, f"frame {index}: token {found} instead of {expected}, ahead by {gap:.2g}"
            report.token_ties += 1
            state.token[rows] = expected
        if pauses is not None:
            torch.testing.assert_close(output.pauses[0], pauses[index], rtol=0, atol=PAUSE_TOLERANCE)
        counts[found] += 1
    report.distinct_tokens = len(counts)

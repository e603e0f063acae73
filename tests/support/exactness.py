"""Comparison of the streaming networks with the results of a reference, frame by frame.

Different BLAS calls round differently, which can change the result of a near-tie. A difference counts as a tie if the
two candidates are closer than 1e-5 of the distance (codes) or 1e-4 (logits); the comparison then continues with the
reference's choice. Any other difference fails.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from tympan.models.cpu.networks import run_lm_on_cpu, run_mimi_on_cpu
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

CODE_GAP = 1e-5
LOGIT_GAP = 1e-4
PAUSE_TOLERANCE = 1e-5


@dataclass
class Report:
    """Coverage of a comparison; one of constants would prove nothing."""

    frames: int = 0
    code_ties: int = 0
    token_ties: int = 0
    distinct_codes: int = 0
    distinct_tokens: int = 0


def compare_codes(mimi: MimiEncoder, frames: Tensor, expected: Tensor, report: Report) -> None:
    """Stream ``frames [T, 1920]`` through ``mimi``, and check that the codes are ``expected [T, K]``.

    Both executors of the codec are compared: PyTorch, and the one for CPUs.
    """
    on_cpu = deepcopy(mimi)
    run_mimi_on_cpu(on_cpu)
    for executor in (mimi, on_cpu):
        codes = _stream_codes(executor, mimi, frames, expected, report)
    report.frames += len(frames)
    report.distinct_codes = min(len(set(column.tolist())) for column in torch.stack(codes).t())


def _stream_codes(
    executor: MimiEncoder, mimi: MimiEncoder, frames: Tensor, expected: Tensor, report: Report
) -> list[Tensor]:
    state, rows = executor.init_state(2), torch.tensor([1])
    codes = []
    for index, frame in enumerate(frames):
        latent = executor.latent(frame[None], state, rows)
        found = executor.quantizer(latent, executor.codebooks)[0]
        if not torch.equal(found, expected[index]):
            report.code_ties += code_ties(mimi, latent, expected[index], index)
        codes.append(found)
    return codes


def code_ties(mimi: MimiEncoder, latent: Tensor, expected: Tensor, frame: int) -> int:
    """Repeat the search with the reference's choices, and return the number of near-ties; fail on other differences."""
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
    # The exact search may agree with the reference: then the float32 search chose the other one of a near-tie.
    return max(ties, 1)


def compare_tokens(lm: LM, codes: Tensor, tokens: list[int], pauses: Tensor | None, report: Report) -> None:
    """Stream ``codes [T, K]`` through ``lm``, and check that tokens ``[T]`` and pauses ``[T, heads]`` agree.

    Both executors are compared, as in :func:`compare_codes`.
    """
    on_cpu = deepcopy(lm)
    run_lm_on_cpu(on_cpu, "f32")
    for executor in (lm, on_cpu):
        _stream_tokens(executor, codes, tokens, pauses, report)


def _stream_tokens(lm: LM, codes: Tensor, tokens: list[int], pauses: Tensor | None, report: Report) -> None:
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

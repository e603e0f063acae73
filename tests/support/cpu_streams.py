"""The same streams through the networks on a CPU, in batches of any size; as a script, prints a digest of the results.

python tests/support/cpu_streams.py KIND BATCH THREADS
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import torch
from torch import Tensor

from support.model_speech import speech
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu.linear import WeightType
from tympan.models.cpu.networks import run_lm_on_cpu, run_mimi_on_cpu
from tympan.models.cpu.threads import give_threads_to_sessions
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

FRAMES = 115  # the tiny model's rings hold 25 and 100
STREAMS = 5


@dataclass
class Stream:
    """One stream's audio and its results so far."""

    frames: Tensor
    results: list[tuple[Tensor, ...]] = field(default_factory=list)


@cache
def networks(kind: WeightType) -> tuple[MimiEncoder, LM]:
    checkpoint = open_checkpoint("random:tiny")
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    run_mimi_on_cpu(mimi)
    run_lm_on_cpu(lm, kind)
    return mimi, lm


def run_streams(kind: WeightType, batch: int, frames: int = FRAMES) -> list[list[Tensor]]:
    """Run `STREAMS` streams in random batches of up to ``batch`` rows, each stream in a slot of its own.

    Returns:
        Of every stream: codes, tokens, probabilities, pauses and logits, with frames first.
    """
    mimi, lm = networks(kind)
    choice = random.Random(batch)
    codec, words = mimi.init_state(STREAMS), lm.init_state(STREAMS)
    streams = [Stream(speech(frames, seed)) for seed in range(STREAMS)]
    while waiting := [slot for slot, stream in enumerate(streams) if len(stream.results) < frames]:
        rows = choice.sample(waiting, min(batch, len(waiting)))
        step(mimi, lm, (codec, words), rows, [streams[slot] for slot in rows])
    return [[torch.stack(part) for part in zip(*stream.results, strict=True)] for stream in streams]


def step(mimi: MimiEncoder, lm: LM, states: tuple, rows: Sequence[int], streams: Sequence[Stream]) -> None:  # type: ignore[type-arg]
    slots = torch.tensor(rows)
    frames = torch.stack([stream.frames[len(stream.results)] for stream in streams])
    codes = mimi.encode(frames, states[0], slots)
    output = lm.step(codes, states[1], slots)
    parts = (codes, output.token, output.probability, output.pauses, output.logits)
    for row, stream in enumerate(streams):
        stream.results.append(tuple(part[row] for part in parts))


def main() -> None:
    kind, batch, threads = cast(WeightType, sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    networks(kind)
    give_threads_to_sessions()
    digest = hashlib.sha256()
    for stream in run_streams(kind, batch):
        for part in stream:
            digest.update(part.numpy().tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()

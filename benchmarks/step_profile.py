"""Measure the parts of one step on a CPU, in the codec and in the language model.

    python benchmarks/step_profile.py [--model random:1b] [--dtype int8] [--batch 1,8] [--threads 2] [--rounds 40]

Every stream has full rings. `links` are the graphs between two attentions: products, norms, rotations, activations.
`attention` includes the writing of keys and values, and `rest` is what is in no other part: embeddings, sampling,
Python. The parts are medians, so they need not add up to the step. `resident_gb` is the memory of the whole process,
both models in it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import nn

from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu.networks import run_lm_on_cpu, run_mimi_on_cpu
from tympan.models.cpu.threads import give_threads_to_pytorch, give_threads_to_sessions
from tympan.models.cpu.transformer import CpuTransformer
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

AN_HOUR = 45_000  # frames: every ring is full


class Clock:
    """Accumulates the seconds of each part within a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        self.seconds = defaultdict(float)
        start = time.perf_counter()
        yield
        self.seconds["step"] = time.perf_counter() - start
        self.steps.append(self.seconds)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments, **named)
            self.seconds[part] += time.perf_counter() - start
            return result

        return run

    def watch(self, part: str, modules: Iterable[nn.Module]) -> None:
        for module in modules:
            module.forward = self.timed(part, module.forward)

    def medians(self) -> dict[str, float]:
        """Return the median milliseconds of each part and of the whole step."""
        parts = [name for name in self.steps[0] if name != "step"]
        for step in self.steps:
            step["rest"] = step["step"] - sum(step[part] for part in parts)
        return {
            name: round(1000 * statistics.median(step[name] for step in self.steps), 2)
            for name in (*parts, "rest", "step")
        }


def profile_codec(mimi: MimiEncoder, batch: int, rounds: int) -> dict[str, float]:
    clock, rows = Clock(), torch.arange(batch)
    for part in ("seanet", "transformer", "downsample", "quantizer"):
        clock.watch(part, [getattr(mimi, part)])
    state = mimi.init_state(batch)
    state.position.fill_(AN_HOUR)
    frames = torch.randn(batch, mimi.frame_samples) * 0.1
    return run(clock, lambda: mimi.encode(frames, state, rows), rounds)


def profile_lm(lm: LM, batch: int, rounds: int) -> dict[str, float]:
    clock, rows, transformer = Clock(), torch.arange(batch), lm.transformer
    assert isinstance(transformer, CpuTransformer)
    rings = transformer._rings
    attend_over = rings.over

    def over(*arguments: Any) -> Any:
        attention = attend_over(*arguments)
        attention.attend = clock.timed("attention", attention.attend)  # type: ignore[method-assign]
        return attention

    rings.over = over  # type: ignore[assignment, method-assign]
    for link in transformer._links:
        link.run = clock.timed("links", link.run)  # type: ignore[method-assign]
    clock.watch("heads", [lm.text_linear, *([] if lm.pause_linear is None else [lm.pause_linear])])
    state = lm.init_state(batch, cache_dtype=torch.float32)
    state.position.fill_(AN_HOUR)
    codes = torch.randint(0, lm.config.audio_card, (batch, lm.codebooks))
    return run(clock, lambda: lm.step(codes, state, rows), rounds)


def run(clock: Clock, call: Callable[[], object], rounds: int) -> dict[str, float]:
    for turn in range(rounds + 3):
        if turn == 3:
            clock.steps.clear()
        with clock.step():
            call()
    return clock.medians()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:1b")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = open_checkpoint(options.model)
    rows = []
    for batch in map(int, options.batch.split(",")):
        give_threads_to_pytorch()
        mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.bfloat16)
        run_mimi_on_cpu(mimi)
        run_lm_on_cpu(lm, options.dtype)
        give_threads_to_sessions()
        for name, parts in (
            ("codec", profile_codec(mimi, batch, options.rounds)),
            (f"lm {options.dtype}", profile_lm(lm, batch, options.rounds)),
        ):
            rows.append({"model": name, "batch": batch, "ms": parts})
            print(f"{name:>10} {batch:>3}  " + "  ".join(f"{part} {ms}" for part, ms in parts.items()))
    resident = round(psutil.Process().memory_info().rss / 1e9, 2)
    print(json.dumps({"rows": rows, "resident_gb": resident, "threads": options.threads, "torch": torch.__version__}))


if __name__ == "__main__":
    main()

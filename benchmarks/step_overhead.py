"""Measure the Python code of a step around the model: scheduler, batch assembly, words, delivery.

    python benchmarks/step_overhead.py [--streams 1,16,256,1000] [--steps 200]

The real engine with its thread, its scheduler and its runner, and a model that does nothing: its tokens are drawn in
advance, a word every few frames. Every stream has a frame in every step. Microseconds of this process's CPU time (both
threads) per active stream and step, pushing the frames included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import torch

from tympan.config import ModelSettings
from tympan.engine.base import EngineInfo
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.kyutai.program import LoadedModel
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import EngineEvent, Progress
from tympan.models.checkpoints.randomized import PRESETS
from tympan.models.layers.attention import restart
from tympan.models.lm import LMOutput
from tympan.transcript.tokenizer import SyntheticTokenizer

INFO = EngineInfo("nothing", "nothing", "cpu", 24_000, 1_920, 0.5, (0.5, 1.0, 2.0, 3.0), "model", ("en",))


@dataclass
class NoState:
    position: torch.Tensor = field(default_factory=lambda: torch.zeros(4096, dtype=torch.int64))
    seed: torch.Tensor = field(default_factory=lambda: torch.zeros(4096, dtype=torch.int64))

    def reset(self, rows: torch.Tensor, begin: torch.Tensor, seeds: torch.Tensor | None = None) -> None:
        restart(self.position, rows, begin)


class NoCodec:
    frame_samples = INFO.frame_samples

    def init_state(self, slots: int) -> NoState:
        self._codes = torch.zeros(slots, NoModel.codebooks, dtype=torch.int64)
        return NoState()

    def encode(self, frames: torch.Tensor, state: NoState, rows: torch.Tensor) -> torch.Tensor:
        return self._codes[: len(rows)]


class NoModel:
    """A model that repeats a boundary, two pieces and two paddings, each row with its own offset; made in advance."""

    config = PRESETS["tiny"].lm
    codebooks = config.codebooks

    def init_state(self, slots: int, *, cache_dtype: torch.dtype, scales: torch.Tensor | None) -> NoState:
        rows, said = torch.arange(slots), torch.tensor([0, 4, 6, 3, 3])
        half, quarter = torch.full((slots,), 0.5), torch.full((slots, 4), 0.25)
        tokens = [said[(rows + step) % len(said)] for step in range(len(said))]
        self._outputs = cycle(LMOutput(token, half, quarter, torch.empty(0)) for token in tokens)
        return NoState()

    def step(self, codes: torch.Tensor, state: NoState, rows: torch.Tensor) -> LMOutput:
        output = next(self._outputs)
        if len(rows) < len(output.token):  # the engine did not wait for the last stream
            some = slice(len(rows))
            return LMOutput(output.token[some], output.probability[some], output.pauses[some], output.logits)
        return output


def load(slots: int) -> KyutaiRunner:
    nothing = LoadedModel(NoCodec(), NoModel(), SyntheticTokenizer(100), torch.device("cpu"), torch.float32)  # type: ignore[arg-type]
    return KyutaiRunner(nothing, INFO, slots)


class Counter:
    """Counts processed frames of all streams, and sets `done` when all of a step are processed."""

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._frames = 0
        self.done = asyncio.Event()

    def __call__(self, events: Sequence[EngineEvent]) -> None:
        self._frames += sum(isinstance(event, Progress) for event in events)
        if self._frames == self._streams:
            self._frames = 0
            self.done.set()


async def measure(streams: int, steps: int) -> float:
    """Return the microseconds of CPU time per stream and step."""
    engine = BatchedEngine(lambda: load(streams), stall_seconds=ModelSettings().stall_seconds)
    await engine.start()
    counter = Counter(streams)
    slots = [engine.open(counter) for _ in range(streams)]
    frame = np.zeros(INFO.frame_samples, np.float32)
    began = 0.0
    for step in range(steps + 10):
        if step == 10:
            began = time.process_time()
        for slot in slots:
            slot.push(frame)
        await counter.done.wait()
        counter.done.clear()
    spent = time.process_time() - began
    await engine.stop()
    return 1e6 * spent / (streams * steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,16,256,1000")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for streams in map(int, arguments.streams.split(",")):
        rows.append(
            {"streams": streams, "us_per_stream_step": round(asyncio.run(measure(streams, arguments.steps)), 2)}
        )
        print(rows[-1])
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()

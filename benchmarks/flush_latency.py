"""Measure a flush: from the request to its answer, for this version and an earlier one in turn.

    git worktree add ../before 04688ba
    python benchmarks/flush_latency.py --before ../before [--model random:tiny] [--dtype f32] [--rounds 5]

One live stream on a CPU. The model runs as always, but its tokens are replaced: padding, so that nothing is pending, or
a word whose last piece comes in the last frame of the flush, so that a version that waits for whole words extends the
flush. Also measured: the time from the end of a stream to its last event, and a step. The ratios are those of the
medians over all rounds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from tympan.config import ModelSettings
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult, flush_frames
from tympan.engine.kyutai.capacity import full_context_rows
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import EngineEvent, Finished, Flushed, Progress
from tympan.transcript.words import PADDING

AUDIO_FRAMES = 5  # before each flush
PIECE = 4

Figures = dict[str, list[float]]


class ScriptedTokens:
    """A runner whose tokens depend on the place of a row in a flush.

    Attributes:
        pending: Whether the last frame of a flush has a piece of a word.
    """

    def __init__(self, runner: KyutaiRunner) -> None:
        self.info, self.slots, self.tokenizer = runner.info, runner.slots, runner.tokenizer
        self.pending = False
        self._runner, self._last = runner, flush_frames(runner.info)
        self._silent_frames = 0

    def launch(self, rows: Sequence[Row]) -> StepResult:
        result = self._runner.launch(rows)
        assert isinstance(result, StepResult), "this benchmark is for a CPU"
        (row,) = rows
        self._silent_frames = self._silent_frames + 1 if row.injected else 0
        token = PIECE if self.pending and self._silent_frames == self._last else PADDING
        return replace(result, tokens=[token])


class Events:
    """The `deliver` callback of a stream."""

    def __init__(self) -> None:
        self._seen: list[EngineEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, events: Sequence[EngineEvent]) -> None:
        self._seen += events
        self._changed.set()

    async def wait_for(self, kind: type, count: int = 1) -> None:
        """Wait for events of this type, and forget all."""
        while sum(isinstance(event, kind) for event in self._seen) < count:
            self._changed.clear()
            await self._changed.wait()
        self._seen.clear()


async def measure(model: str, dtype: str, flushes: int) -> Figures:
    """Return the milliseconds of each flush, end and step."""
    runner = load_runner(ModelSettings(model=model, dtype=dtype, device="cpu", max_streams=1))
    scripted = ScriptedTokens(runner)
    for row in full_context_rows(runner, 1) * 3:
        runner.launch([row])
    engine = BatchedEngine(lambda: scripted)
    await engine.start()
    steps: list[float] = []
    engine.observe = lambda report: steps.append(1000 * report.seconds)
    figures: Figures = {"nothing pending": [], "word pending": [], "end": []}
    frame = full_context_rows(runner, 1)[0].frame
    assert frame is not None
    for number in range(flushes):
        for name, milliseconds in figures.items():
            scripted.pending = name == "word pending"
            events = Events()
            stream = engine.open(events)
            for _ in range(AUDIO_FRAMES):
                stream.push(frame)
            await events.wait_for(Progress, AUDIO_FRAMES)
            began = time.perf_counter()
            if name == "end":
                stream.finish()
            else:
                stream.flush(number)
            await events.wait_for(Finished if name == "end" else Flushed)
            milliseconds.append(1000 * (time.perf_counter() - began))
            stream.close()
    await engine.stop()
    return figures | {"step": steps}


def compare(arguments: argparse.Namespace) -> None:
    """Measure both versions in turn, and print the medians and their ratios."""
    here = Path(__file__).resolve().parent.parent
    trees = {"before": arguments.before.resolve(), "after": here}
    results: dict[str, Figures] = {version: {} for version in trees}
    options = ["--model", arguments.model, "--dtype", arguments.dtype, "--flushes", str(arguments.flushes)]
    for _ in range(arguments.rounds):
        for version, tree in trees.items():
            environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
            command = [sys.executable, __file__, *options]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            for name, values in json.loads(done.stdout.splitlines()[-1]).items():
                results[version].setdefault(name, []).extend(values)
    report = {}
    for name in results["after"]:
        before, after = median(results["before"][name]), median(results["after"][name])
        report[name] = {"before_ms": round(before, 2), "after_ms": round(after, 2), "ratio": round(after / before, 3)}
        print(name, report[name])
    print(json.dumps({"model": arguments.model, "dtype": arguments.dtype, "load": os.getloadavg()[0], **report}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="Folder of the earlier version; without it, only this one runs.")
    parser.add_argument("--model", default="random:tiny")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flushes", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.before is not None:
        compare(arguments)
    else:
        print(json.dumps(asyncio.run(measure(arguments.model, arguments.dtype, arguments.flushes))))


if __name__ == "__main__":
    main()

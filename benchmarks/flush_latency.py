"""Measure a flush: from the request to its answer, for this version and an earlier one in turn.

    git worktree add ../before 04688ba
    python benchmarks/flush_latency.py --before ../before [--model random:tiny] [--dtype f32] [--rounds 100]

One live stream on a CPU. The model runs as always, but its tokens are replaced: padding, so that nothing is pending, or
a word whose last piece comes in the last frame of the flush, so that a version that waits for whole words extends the
flush. Also measured: the time from the end of a stream to its last event, and a step. Each version has a process; they
measure one flush of each kind in turn, so that other load meets both. The ratios are those of the medians. The last
line is JSON.
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
WARM_UP_ROUNDS = 5

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


async def measure(model: str, dtype: str) -> None:
    """Measure one flush of each kind for every line of standard input, and print the milliseconds."""
    runner = load_runner(ModelSettings(model=model, dtype=dtype, device="cpu", max_streams=1))
    scripted = ScriptedTokens(runner)
    for row in full_context_rows(runner, 1) * 3:
        runner.launch([row])
    engine = BatchedEngine(lambda: scripted)
    await engine.start()
    steps: list[float] = []
    engine.observe = lambda report: steps.append(1000 * report.seconds)
    frame = full_context_rows(runner, 1)[0].frame
    assert frame is not None
    while await asyncio.to_thread(sys.stdin.readline):
        figures: Figures = {}
        for name in ("nothing pending", "word pending", "end"):
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
                stream.flush(1)
            await events.wait_for(Finished if name == "end" else Flushed)
            figures[name] = [1000 * (time.perf_counter() - began)]
            stream.close()
        print(json.dumps(figures | {"step": steps}), flush=True)
        steps.clear()
    await engine.stop()


def compare(arguments: argparse.Namespace) -> None:
    """Measure both versions in turn, and print the medians and their ratios."""
    here = Path(__file__).resolve().parent.parent
    trees = {"before": arguments.before.resolve(), "after": here}
    results: dict[str, Figures] = {version: {} for version in trees}
    command = [sys.executable, __file__, "--model", arguments.model, "--dtype", arguments.dtype]
    processes = {
        version: subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version, tree in trees.items()
    }
    for number in range(WARM_UP_ROUNDS + arguments.rounds):
        for version, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            for name, values in json.loads(process.stdout.readline()).items():
                if number >= WARM_UP_ROUNDS:
                    results[version].setdefault(name, []).extend(values)
    for process in processes.values():
        process.communicate()
    report = {}
    for name in results["after"]:
        before, after = median(results["before"][name]), median(results["after"][name])
        report[name] = {"before_ms": round(before, 2), "after_ms": round(after, 2), "ratio": round(after / before, 3)}
        print(name, report[name])
    print(json.dumps({"model": arguments.model, "dtype": arguments.dtype, "load": os.getloadavg()[0], **report}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="Folder of the earlier version; without it, one process measures.")
    parser.add_argument("--model", default="random:tiny")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.before is not None:
        compare(arguments)
    else:
        asyncio.run(measure(arguments.model, arguments.dtype))


if __name__ == "__main__":
    main()

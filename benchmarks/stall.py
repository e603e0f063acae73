"""Measure a restart of a stream's model: 12 s of codes are replayed through the language model.

    python benchmarks/stall.py [--model random:1b] [--dtype auto]

Reports the median time of a step of one live stream at full context; the time to replay all kept frames, by which the
stream is behind afterwards; and the time after which it has caught up. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time

from tympan.config import ModelSettings
from tympan.engine.batching.scheduler import REPLAY_FRAMES, Row, Slot
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.capacity import full_context_step_seconds
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.runner import KyutaiRunner

STEPS = 60


def seconds(runner: KyutaiRunner, row: Row) -> float:
    """Return the seconds of a step of this row alone."""
    began = time.perf_counter()
    result = runner.launch([row])
    if not isinstance(result, StepResult):
        result.wait()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:1b")
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    runner = load_runner(ModelSettings(model=arguments.model, dtype=arguments.dtype, max_streams=2))
    step = full_context_step_seconds(runner, 1, STEPS)
    slot = Slot(1, None)
    again = (Row(slot, None, number == 0, number=number, replayed=True) for number in range(REPLAY_FRAMES))
    behind = sum(seconds(runner, row) for row in again)
    gain = 1 - step / runner.info.frame_seconds
    report = {
        "device": runner.info.device,
        "engine": runner.info.engine,
        "step_ms": round(1000 * step, 1),
        "behind_s": round(behind, 2),
        "caught_up_s": round(behind * (1 / gain - 1), 1) if gain > 0 else None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

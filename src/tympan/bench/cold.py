"""A process that starts an engine, speaks to it until it says something, and tells where its seconds went.

`python -m tympan.bench.cold SPAWNED SETTINGS`: the monotonic clock when it was spawned, and `ModelSettings` as JSON.
Prints one line of JSON, seconds by stage, the moment the words are there. It imports what `tympan serve` imports for
the engine, and no web framework.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from tympan.config import ModelSettings
from tympan.engine.base import Engine
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.registry import create_engine
from tympan.errors import EngineError, TympanError
from tympan.messages import EngineEvent, Failed, Partial, Progress, Samples, Word

LONGEST_SPEECH_SECONDS = 20.0


async def cold_start(settings: ModelSettings, stages: StartupTimer) -> None:
    """From the imports to the first words, each stage into `stages`. Raises what the engine raises."""
    with stages.timed("imports"):
        engine = create_engine(settings)
    began = time.perf_counter()
    await engine.start()
    start_seconds = time.perf_counter() - began
    stages.seconds |= engine.start_seconds
    stages.seconds["rest of the start"] = start_seconds - sum(engine.start_seconds.values())
    try:
        await _speak(engine, stages)
        print(json.dumps(stages.seconds), flush=True)  # noqa: T201
    finally:
        await engine.stop()


async def _speak(engine: Engine, stages: StartupTimer) -> None:
    """One frame after the other, each as soon as the last one is worked off."""
    heard: asyncio.Queue[EngineEvent] = asyncio.Queue()

    def hear(events: Sequence[EngineEvent]) -> None:
        for event in events:
            heard.put_nowait(event)

    stream = engine.open(hear)
    info = engine.info
    name, spoke = "first frame", False
    for frame in voice(LONGEST_SPEECH_SECONDS, info.sample_rate).reshape(-1, info.frame_samples):
        with stages.timed(name):
            stream.push(frame)
            while not isinstance(event := await heard.get(), Progress):
                if isinstance(event, Failed):
                    raise event.error
                spoke = spoke or isinstance(event, Partial | Word)
        name = "first words"
        if spoke:
            return
    raise EngineError(f"the model said nothing to {LONGEST_SPEECH_SECONDS:.0f} s of a synthetic voice")


def voice(seconds: float, sample_rate: int) -> Samples:
    """Gliding harmonics in syllables with pauses, float32 in -1..1."""
    clock = np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum((120 + 40 * np.sin(2 * np.pi * 0.7 * clock)) / sample_rate)
    tone = sum(np.sin(n * phase) / n for n in range(1, 13))
    syllables = np.clip(np.sin(2 * np.pi * 3 * clock), 0, None) * (np.sin(2 * np.pi * 0.5 * clock) > -0.5)
    hiss = 0.01 * np.random.default_rng(0).standard_normal(len(clock))
    return np.clip(0.2 * tone * syllables + hiss, -1, 1).astype(np.float32)


def main(spawned: float, settings: ModelSettings) -> None:
    """Ends the process with one sentence where the model cannot be had."""
    stages = StartupTimer()
    stages.seconds["interpreter"] = time.monotonic() - spawned
    try:
        asyncio.run(cold_start(settings, stages))
    except TympanError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(float(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=ModelSettings))

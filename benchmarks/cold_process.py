"""Start an engine in this process and push speech until the first words; run by `cold_start.py`.

    python benchmarks/cold_process.py SPAWNED SETTINGS

SPAWNED is the monotonic clock when the process was started, SETTINGS is `ModelSettings` as JSON. Prints the seconds of
each stage as one line of JSON with the first words. Imports what `tympan serve` imports for the engine, and no web
framework. The speech is a synthetic voice, in which Whisper's voice activity model finds no speech, or for Whisper a
clip of `pytest-audioeval`.
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


async def cold_start(settings: ModelSettings, timer: StartupTimer) -> None:
    """Time each stage from the imports to the first words."""
    with timer.timed("imports"):
        engine = create_engine(settings)
    began = time.perf_counter()
    await engine.start()
    start_seconds = time.perf_counter() - began
    timer.seconds |= engine.start_seconds
    timer.seconds["rest of the start"] = start_seconds - sum(engine.start_seconds.values())
    try:
        await _push_speech(engine, timer)
        print(json.dumps(timer.seconds), flush=True)
    finally:
        await engine.stop()


async def _push_speech(engine: Engine, timer: StartupTimer) -> None:
    """Push frame after frame, each as soon as the last one has been transcribed."""
    received: asyncio.Queue[EngineEvent] = asyncio.Queue()

    def deliver(events: Sequence[EngineEvent]) -> None:
        for event in events:
            received.put_nowait(event)

    info = engine.info
    samples = clip() if info.engine == "whisper" else voice(LONGEST_SPEECH_SECONDS, info.sample_rate)
    stream = engine.open(deliver)
    name, has_words = "first frame", False
    for frame in samples[: len(samples) // info.frame_samples * info.frame_samples].reshape(-1, info.frame_samples):
        with timer.timed(name):
            stream.push(frame)
            while not isinstance(event := await received.get(), Progress):
                if isinstance(event, Failed):
                    raise event.error
                has_words = has_words or isinstance(event, Partial | Word)
        name = "first words"
        if has_words:
            return
    raise EngineError("the model gave no words in any of the speech")


def clip() -> Samples:
    """Return three seconds of an English speaker at 16 kHz, float32 in -1..1."""
    from pytest_audioeval.samples.registry import SampleRegistry

    samples: Samples = SampleRegistry().en_counting.audio_numpy()
    return samples


def voice(seconds: float, sample_rate: int) -> Samples:
    """Return gliding harmonics in syllables with pauses, float32 in -1..1."""
    clock = np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum((120 + 40 * np.sin(2 * np.pi * 0.7 * clock)) / sample_rate)
    tone = sum(np.sin(n * phase) / n for n in range(1, 13))
    syllables = np.clip(np.sin(2 * np.pi * 3 * clock), 0, None) * (np.sin(2 * np.pi * 0.5 * clock) > -0.5)
    hiss = 0.01 * np.random.default_rng(0).standard_normal(len(clock))
    return np.clip(0.2 * tone * syllables + hiss, -1, 1).astype(np.float32)


def main(spawned: float, settings: ModelSettings) -> None:
    """Run, or exit with the error as one sentence."""
    timer = StartupTimer()
    timer.seconds["interpreter"] = time.monotonic() - spawned
    try:
        asyncio.run(cold_start(settings, timer))
    except TympanError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(float(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=ModelSettings))

"""The engine of `--model embedded` and `whisper:NAME`: one worker process per core, with its share of the slots."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tympan.config import ModelSettings
from tympan.engine.base import Deliver, EngineInfo, Observe
from tympan.engine.batching.restarts import MAX_RESTARTS
from tympan.engine.embedded.process import EmbeddedStream, WorkerProcess
from tympan.engine.embedded.whisper.files import EMBEDDED, PACKAGES, languages_of, locate_model
from tympan.errors import CapacityError, EngineError, missing_package

MOST_STREAMS_PER_CORE = 8  # if a core is fast enough for them

INFO = EngineInfo(
    model=EMBEDDED,
    engine="whisper",
    device="cpu",
    sample_rate=16_000,
    frame_samples=1_280,
    delay_seconds=0.5,
    pause_horizons=(0.5, 1.0, 2.0, 3.0),
    turns_from="energy",
    languages=(),
    notice="Whisper recognizes windows of speech on the CPU; words appear about a second after they are spoken.",
)


class EmbeddedEngine:
    """An `Engine` with `max_streams` slots, or as many as the worker processes measure that the cores carry."""

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        most = cores * MOST_STREAMS_PER_CORE
        self.info = replace(INFO, model=settings.model, languages=("en",) if settings.model == EMBEDDED else ())
        self.capacity = settings.max_streams or min(most, most_streams or most)
        self.observe: Observe | None = None
        self.moved_streams = 0
        self.stage = ""
        self.start_seconds: Mapping[str, float] = {}
        self._model_folder: Path | None = None
        measure = settings.max_streams is None
        self._workers = [WorkerProcess(slots, measure=measure) for slots in _shares(self.capacity, cores)]
        self._started = False

    @property
    def active(self) -> int:
        return sum(worker.active for worker in self._workers)

    @property
    def ready(self) -> bool:
        return self._started and any(worker.alive for worker in self._workers)

    def load(self) -> None:
        """Find and verify the model, and download it if necessary; the worker processes load it.

        Raises:
            MissingPackageError: The recognizer is not installed.
            ModelError: There is no such model, or its files are not the expected ones.
        """
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise missing_package(f"the model {self.info.model}", package.replace("_", "-"), "embedded")
        self._model_folder = locate_model(self.info.model)
        self.info = replace(self.info, languages=languages_of(self._model_folder))

    async def start(self) -> None:
        if self._started:
            return
        if self._model_folder is None:
            await asyncio.to_thread(self.load)
            assert self._model_folder is not None
        await asyncio.gather(*(worker.start(self._model_folder) for worker in self._workers))
        self.capacity = sum(worker.slots for worker in self._workers)
        self._started = True

    def open(self, deliver: Deliver, *, live: bool = True) -> EmbeddedStream:
        if not self.ready:
            raise EngineError("the recognizer processes are not running")
        worker = max(self._workers, key=lambda worker: worker.free)
        if not worker.free:
            raise CapacityError(f"all {self.capacity} streams are taken; try again later")
        return worker.open(deliver)

    def check(self, longest_seconds: int) -> str:
        """Kill worker processes that hang, which are restarted; it is a fatal error if no process can be started."""
        for worker in self._workers:
            worker.check(longest_seconds)
        if all(worker.failed_starts > MAX_RESTARTS for worker in self._workers):
            return f"no recognizer process started in {MAX_RESTARTS} restarts in a row"
        return ""

    async def stop(self) -> None:
        self._started = False
        await asyncio.gather(*(worker.stop() for worker in self._workers))


def _shares(streams: int, cores: int) -> list[int]:
    """Distribute `streams` as evenly as possible over at most `cores` workers."""
    workers = min(streams, cores)
    return [streams // workers + (worker < streams % workers) for worker in range(workers)]

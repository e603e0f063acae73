"""The engine for Kyutai's speech-to-text models: its creation, its starts and its errors."""

from __future__ import annotations

import logging

import torch

from tympan.config import ModelSettings
from tympan.engine.batching.engine import BatchedEngine, OnToken
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.kyutai.loader import fetch, load_runner
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.errors import ConfigError
from tympan.models.checkpoints.checkpoint import Checkpoint
from tympan.models.checkpoints.load import open_checkpoint

logger = logging.getLogger(__name__)


def create_kyutai_engine(
    settings: ModelSettings, on_token: OnToken | None = None, *, most_streams: int | None = None
) -> BatchedEngine:
    """Return an engine for `settings.model`, not started. Its slots are as for `load_runner`."""
    source = RunnerSource(settings, most_streams)
    return BatchedEngine(
        source.make_runner,
        on_token,
        load=source.read,
        timer=source.timer,
        stall_seconds=settings.stall_seconds,
        device_lost=device_lost,
    )


class RunnerSource:
    """Makes a runner for every start of the engine thread; the first one from memory if `read` was called before."""

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        self.timer = StartupTimer()
        self._settings = settings
        self._most_streams = most_streams
        self._checkpoint: Checkpoint | None = None

    def read(self) -> None:
        """Read the checkpoint's files into memory, without a device.

        Raises:
            ModelError: The model cannot be read.
        """
        checkpoint = open_checkpoint(self._settings.model)
        fetch(checkpoint, self.timer)
        with self.timer.timed("read"):
            self._checkpoint = checkpoint.in_memory()

    def make_runner(self) -> KyutaiRunner:
        """Return the result of `load_runner`, and raise `ConfigError` if memory runs out."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            self.timer.seconds.clear()  # remove the stages of an earlier start
        try:
            runner = load_runner(self._settings, self._most_streams, checkpoint, self.timer)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            raise ConfigError(
                f"not enough memory to start {self._settings.model}: use a smaller --dtype or fewer --max-streams"
            ) from None
        logger.info("started: %s", self.timer)
        return runner


def ran_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, which PyTorch reports on a CPU as a plain `RuntimeError`."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def device_lost() -> bool:
    """Return whether the CUDA context is unusable, as after an illegal access: then synchronizing fails, too."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False

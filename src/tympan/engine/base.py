"""The interface between recognizers and the server.

An `Engine` owns a device and carries many streams. `Engine.open` takes a slot and returns an `EngineStream`. The
stream's events are passed to its `deliver` callback in the order in which they happened, several at a time, always on
the event loop on which the engine was started. The last event of a stream is `Finished` or `Failed`, unless the stream
was closed before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tympan.messages import EngineEvent, Pcm, Ready

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[EngineEvent]], None]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Description of an engine, shown at start-up, in `/health`, in `/v1/models` and on the web page.

    Attributes:
        sample_rate: Samples per second of the frames that the engine takes.
        frame_samples: Samples in one frame. A stream is pushed whole frames only.
        delay_seconds: Least amount of audio after a word that the engine needs before it releases the word.
        pause_horizons: Seconds that each number of `Progress.pauses` looks ahead; empty if the engine reports none.
        turns_from: Where pause probabilities come from.
        silence_prefix_seconds: Silence that the engine runs before the audio of a stream. Times do not include it.
        notice: One sentence for the users of this engine; may be empty.
    """

    model: str
    engine: str
    device: str
    sample_rate: int
    frame_samples: int
    delay_seconds: float
    pause_horizons: tuple[float, ...]
    turns_from: Literal["model", "energy", "script"]
    languages: tuple[str, ...]
    silence_prefix_seconds: float = 0.0
    notice: str = ""

    @property
    def frame_seconds(self) -> float:
        """Duration of one frame."""
        return self.frame_samples / self.sample_rate

    def ready(self, session: str) -> Ready:
        """Return the first event of a session, which describes this engine."""
        return Ready(session, self.model, self.engine, self.sample_rate, self.delay_seconds, self.pause_horizons)


@dataclass(frozen=True, slots=True)
class StepReport:
    """Figures of one step, for metrics.

    Attributes:
        seconds: Time from the launch of the step to its result.
        rows: Streams in the step.
        waiting_frames: Frames of all streams that still wait in the engine.
        lag_seconds: Age of the oldest live frame, run in this step or still waiting; 0 without any.
        backlog_lag_seconds: The same for the frames of files and of streams that are behind.
        stalls: Streams whose model state was reset in this step because speech gave no words.
        invalid: Streams that failed because the model's output was NaN.
        repetitions: Streams whose model state was reset in this step because the text repeated itself.
        retries: Finished streams that run again from this step on because their speech gave no word.
    """

    seconds: float
    rows: int
    waiting_frames: int
    lag_seconds: float
    backlog_lag_seconds: float = 0.0
    stalls: int = 0
    invalid: int = 0
    repetitions: int = 0
    retries: int = 0


Observe = Callable[[StepReport], None]


class EngineStream(Protocol):
    """One slot of an engine. All methods return at once and are called on the engine's event loop."""

    def push(self, frame: Pcm) -> None:
        """Queue one frame, `[frame_samples]`. Each frame causes one `Progress`, unless the stream is closed first."""

    def flush(self, marker: int, partial_frame: Pcm | None = None) -> None:
        """Release all words of the frames pushed so far, then deliver `Flushed(marker)`.

        Args:
            marker: Number that identifies the flush.
            partial_frame: An incomplete frame, padded with zeros to `[frame_samples]`. It is recognized before the
                words are released, and does not advance the stream's clock.
        """

    def finish(self) -> None:
        """Release all words of the frames pushed so far, then deliver `Finished` and free the slot."""

    def close(self) -> None:
        """Drop the stream: no more events are delivered, and its slot is free within one step.

        May be called more than once, and after `Finished`.
        """


class Engine(Protocol):
    """A recognizer with a fixed number of slots.

    Attributes:
        moved_streams: How often a stream has continued in another process; 0 for an engine in this process.
    """

    moved_streams: int
    observe: Observe | None
    """Called on the event loop after the events of each step. Engines that do not work in steps never call it."""

    @property
    def info(self) -> EngineInfo:
        """Description of the engine."""

    @property
    def capacity(self) -> int:
        """Number of streams that the engine carries in real time."""

    @property
    def active(self) -> int:
        """Number of open streams."""

    @property
    def ready(self) -> bool:
        """Whether `open` may be called: the engine is started and not broken."""

    @property
    def stage(self) -> str:
        """Current stage of `load`, `start` or a restart, in a word or two; empty if the engine does not report it."""

    @property
    def start_seconds(self) -> Mapping[str, float]:
        """Seconds that each stage of `load` and `start` took; empty if the engine does not report them."""

    def load(self) -> None:
        """Read the files that `start` needs into memory.

        This method blocks, uses no device and creates nothing that must be unique, so a snapshot of the process may be
        taken after it, on a machine without the device.

        Raises:
            ModelError: The model cannot be read.
        """

    async def start(self) -> None:
        """Read what `load` did not, then set up the device and warm it up.

        Raises:
            ModelError: The model cannot be loaded.
        """

    def open(self, deliver: Deliver, *, live: bool = True) -> EngineStream:
        """Take a slot for a stream.

        Args:
            deliver: Callback that receives the stream's events.
            live: False for a file, whose words need not arrive as early as those of a live stream.

        Raises:
            CapacityError: All slots are taken.
            EngineError: The engine is not ready.
        """

    def check(self, longest_seconds: int) -> str:
        """Look for work that hangs. Must be called once a second.

        Work that made no progress for `longest_seconds` hangs: its streams get `Failed`, and it is restarted.

        Returns:
            Fatal error that requires a restart of the process; empty while the engine can recover.
        """

    async def stop(self) -> None:
        """Free the device. Open streams get `Failed`."""


def deliver_events(deliver: Deliver, events: Sequence[EngineEvent]) -> None:
    """Deliver events to a stream; log an exception of the callback, so that it does not affect other streams."""
    try:
        deliver(events)
    except Exception:
        logger.exception("delivering events to a stream failed")


def describe_startup(engine: Engine) -> str:
    """Return the reason why an engine that is starting is not ready, with its current stage."""
    return f"the engine is starting: {engine.stage}" if engine.stage else "the engine is starting"

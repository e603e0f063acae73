"""The seam between everything that understands speech and everything that serves it.

An `Engine` owns a device and carries many streams. `open` takes a slot and returns an `EngineStream`; its events come
back through the `deliver` callback, always on the event loop that started the engine, in the order in which they
happened, several at a time. The last event of every stream that was not closed by its owner is `Finished` or
`Failed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tympan.messages import EngineEvent, Pcm

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[EngineEvent]], None]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for the start-up line, `/health`, `/v1/models` and the page."""

    model: str
    engine: str
    device: str
    sample_rate: int
    """Samples per second of the frames it takes."""
    frame_samples: int
    """Samples in one frame; a stream is pushed whole frames only."""
    delay_seconds: float
    """How much audio after a word the engine hears before it releases it, at the least."""
    pause_horizons: tuple[float, ...]
    """Seconds that each number of `Progress.pauses` looks ahead; empty when the engine reports none."""
    turns_from: Literal["model", "energy", "script"]
    """Where pause probabilities come from."""
    languages: tuple[str, ...]
    silence_prefix_seconds: float = 0.0
    """Silence that the model is to hear before a stream's audio. The engine sees to it, and times do not count it."""
    notice: str = ""
    """One sentence that users of this engine should know; empty if there is none."""

    @property
    def frame_seconds(self) -> float:
        return self.frame_samples / self.sample_rate


def hand_over(deliver: Deliver, events: Sequence[EngineEvent]) -> None:
    """Deliver a stream's events; a fault of one session is logged, and costs the others nothing."""
    try:
        deliver(events)
    except Exception:
        logger.exception("delivering to a stream failed")


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of an engine that runs streams in steps, for metrics."""

    seconds: float
    """From launch to result."""
    rows: int
    """Streams in it."""
    waiting_frames: int
    """Frames of all streams that the engine still has before it."""
    lag_seconds: float
    """How long ago the oldest live frame of this step came."""
    stalls: int = 0
    """Streams whose model was started again in it, because it had given no word for too much speech."""
    invalid: int = 0
    """Streams that ended because the model's output was not a number."""


Observe = Callable[[StepReport], None]


class EngineStream(Protocol):
    """One slot of an engine. None of these block; all are called on the engine's event loop."""

    def push(self, frame: Pcm) -> None:
        """Queue one frame, `[frame_samples]`. Every frame is answered by one `Progress`, unless `close` comes
        first.
        """

    def flush(self, marker: int, rest: Pcm | None = None) -> None:
        """After the frames pushed so far: release all pending words, then `Flushed(mark)`. Word times are not moved
        by it. `rest` is a frame that has only begun, filled up with zeros: it is heard before the words are released,
        and is not counted.
        """

    def finish(self) -> None:
        """After the frames pushed so far: release all pending words, then `Finished`; the slot is free."""

    def close(self) -> None:
        """Drop the stream now: no further events, the slot is freed within one step. Safe to call twice and after
        `Finished`.
        """


def starting(engine: Engine) -> str:
    """What an engine that is not ready does, in words."""
    return f"the engine is starting: {engine.stage}" if engine.stage else "the engine is starting"


class Engine(Protocol):
    """A recognizer with a fixed number of slots."""

    observe: Observe | None
    """Called on the event loop after each step's events; never by engines that do not work in steps."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def capacity(self) -> int:
        """Streams it can carry in real time at once."""

    @property
    def active(self) -> int:
        """Streams it carries now."""

    @property
    def ready(self) -> bool:
        """Whether `open` may be called: started, and not broken."""

    @property
    def stage(self) -> str:
        """What `load`, `start` or a start after a fault is doing now, in a word or two; empty where nobody can tell."""

    @property
    def start_seconds(self) -> Mapping[str, float]:
        """How long each part of `load` and `start` took, where the engine can tell them apart."""

    def load(self) -> None:
        """Bring what `start` reads from files into memory. Blocks, asks no device, makes nothing that must be unique:
        a snapshot of the process may be taken after it, on a machine without the device. Raises `ModelError`.
        """

    async def start(self) -> None:
        """Whatever `load` did not, then the device and a warm-up. Raises `ModelError` when the model cannot be had."""

    def open(self, deliver: Deliver, *, live: bool = True) -> EngineStream:
        """Take a slot; not `live`: for a file, of which nobody waits for each word.

        Raises `CapacityError` when all are taken, `EngineError` when the engine is broken.
        """

    def check(self, longest_seconds: int) -> str:
        """Called once a second. What has had work before it and got none of it done for so long hangs: its streams get
        `Failed`, and it is started again. Where it cannot be, the answer says why only an end of the process helps;
        else it is empty.
        """

    async def stop(self) -> None:
        """Free the device. Streams still open get `Failed`."""

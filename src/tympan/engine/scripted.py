"""An engine that gives fixed words whatever the audio: for tests, load and demonstrations.

The words depend on frame numbers only. Every cycle of 75 frames (6 s) has ten words, five frames apart (0.4 s) and four
frames long, then two seconds of pause. Word `n` of a stream is `word<n>`; like the real model, the engine releases it
six frames after its end. All streams share one loop, which takes 1 ms per step, or as long as the name of the model
says (`scripted:MILLISECONDS`), and transcribes one frame of every stream that has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from tympan.config import ModelSettings
from tympan.engine.base import Deliver, EngineInfo, Observe, StepReport, hand_over
from tympan.errors import CapacityError, ConfigError, EngineError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Partial, Pcm, Progress, Word

logger = logging.getLogger(__name__)

FRAME_SECONDS = 0.08
CYCLE_FRAMES = 75
CYCLE_WORDS = 10
WORD_FRAMES = 4
WORD_STRIDE = 5
DELAY_FRAMES = 6
DEFAULT_CAPACITY = 1024

INFO = EngineInfo(
    model="scripted",
    engine="scripted",
    device="none",
    sample_rate=24_000,
    frame_samples=1_920,
    delay_seconds=DELAY_FRAMES * FRAME_SECONDS,
    pause_horizons=(0.5, 1.0, 2.0, 3.0),
    turns_from="script",
    languages=("en",),
    notice="The scripted model does not listen: it counts frames and says what its script says.",
)


def _pauses(place: int) -> tuple[float, ...]:
    silent = max(0, place - (CYCLE_WORDS * WORD_STRIDE - 1)) * FRAME_SECONDS
    return tuple(round(min(1.0, silent / horizon), 3) for horizon in INFO.pause_horizons)


PAUSES = tuple(map(_pauses, range(CYCLE_FRAMES)))
"""P(pause) after each frame of a cycle."""


def word_start_frame(number: int) -> int:
    """The first frame of word `number`."""
    cycle, place = divmod(number, CYCLE_WORDS)
    return cycle * CYCLE_FRAMES + place * WORD_STRIDE


def seconds_of(frames: int) -> float:
    """To the hundredth: a frame is eight of them."""
    return frames * 8 / 100


def scripted_words(frames: int) -> list[Word]:
    """Every word that a stream of this many frames is given, all told."""
    words: list[Word] = []
    while (start := word_start_frame(len(words))) < frames:
        end = min(start + WORD_FRAMES, frames)
        words.append(Word(f"word{len(words)}", seconds_of(start), seconds_of(end), 1.0))
    return words


class ScriptedStream:
    """Its place in the script, and the work that waits for it."""

    def __init__(self, engine: ScriptedEngine, deliver: Deliver) -> None:
        self._engine = engine
        self.deliver = deliver
        self._work: deque[EngineEvent | None] = deque()  # `None` stands for a frame
        self._frames = 0
        self._words = 0
        self._next_start = word_start_frame(0)  # of the word that has not been released yet
        self.waiting_frames = 0

    def push(self, frame: Pcm) -> None:
        assert frame.shape == (INFO.frame_samples,)
        self.waiting_frames += 1
        self._work.append(None)
        self._engine.wake(self)

    def flush(self, marker: int, rest: Pcm | None = None) -> None:
        self._work.append(Flushed(marker))
        self._engine.wake(self)

    def finish(self) -> None:
        self._work.append(Finished())
        self._engine.wake(self)

    def close(self) -> None:
        self._work.clear()
        self._engine.release(self)

    @property
    def busy(self) -> bool:
        return bool(self._work)

    def step(self) -> list[EngineEvent]:
        """One frame, after any flush or end that waits before it."""
        events: list[EngineEvent] = []
        while self._work:
            event = self._work.popleft()
            if event is None:
                self.waiting_frames -= 1
                self._hear(events)
                break
            self._release(self._frames, 1, events)
            events.append(event)
            if isinstance(event, Finished):
                self._engine.release(self)
                break
        return events

    def _hear(self, events: list[EngineEvent]) -> None:
        frame = self._frames
        self._frames += 1
        if self._next_start + WORD_FRAMES + DELAY_FRAMES <= self._frames:
            self._release(self._frames - DELAY_FRAMES, WORD_FRAMES, events)
        if frame == self._next_start:
            events.append(Partial(f"word{self._words}", seconds_of(frame)))
        events.append(Progress(seconds_of(self._frames), PAUSES[frame % CYCLE_FRAMES]))

    def _release(self, heard_frames: int, least_frames: int, events: list[EngineEvent]) -> None:
        """Words of which at least so much lies in the frames heard so far."""
        while self._next_start + least_frames <= heard_frames:
            end = min(self._next_start + WORD_FRAMES, heard_frames)
            events.append(Word(f"word{self._words}", seconds_of(self._next_start), seconds_of(end), 1.0))
            self._words += 1
            self._next_start = word_start_frame(self._words)


class ScriptedEngine:
    """Serves `max_streams` streams.

    Raises:
        ConfigError: The name of the model has an invalid duration.
    """

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        self._capacity = settings.max_streams or min(DEFAULT_CAPACITY, most_streams or DEFAULT_CAPACITY)
        self._step_seconds = _step_seconds(settings.model)
        self._streams: set[ScriptedStream] = set()
        self._busy: dict[ScriptedStream, None] = {}
        self._work = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self.observe: Observe | None = None

    @property
    def info(self) -> EngineInfo:
        return INFO

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def active(self) -> int:
        return len(self._streams)

    @property
    def ready(self) -> bool:
        return self._loop_task is not None

    @property
    def stage(self) -> str:
        return ""

    @property
    def start_seconds(self) -> Mapping[str, float]:
        return {}

    def load(self) -> None:
        """It reads nothing."""

    async def start(self) -> None:
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._run())

    def open(self, deliver: Deliver, *, live: bool = True) -> ScriptedStream:
        if not self.ready:
            raise EngineError("the scripted engine is not running")
        if self.active >= self._capacity:
            raise CapacityError(f"all {self._capacity} streams are taken; try again later")
        stream = ScriptedStream(self, deliver)
        self._streams.add(stream)
        return stream

    def check(self, longest_seconds: int) -> str:
        """It works on the event loop: who asks, finds it going."""
        return ""

    async def stop(self) -> None:
        if self._loop_task is None:
            return
        self._loop_task.cancel()
        self._loop_task = None
        for stream in list(self._streams):
            self.release(stream)
            hand_over(stream.deliver, [Failed(EngineError("the engine was stopped"))])

    def wake(self, stream: ScriptedStream) -> None:
        if not self._busy:
            self._work.set()
        self._busy[stream] = None

    def release(self, stream: ScriptedStream) -> None:
        self._streams.discard(stream)
        self._busy.pop(stream, None)

    async def _run(self) -> None:
        while True:
            if not self._busy:
                self._work.clear()
                await self._work.wait()
            batch = list(self._busy)
            await asyncio.sleep(self._step_seconds)
            for stream in batch:
                if stream in self._busy:
                    events = stream.step()
                    if not stream.busy:
                        self._busy.pop(stream, None)
                    if events:
                        hand_over(stream.deliver, events)
            if self.observe is not None:
                waiting = [stream.waiting_frames for stream in self._busy]
                lag = FRAME_SECONDS * max(waiting, default=0)
                self.observe(StepReport(self._step_seconds, len(batch), sum(waiting), lag))


def _step_seconds(model: str) -> float:
    """Return the duration of a step for the model `scripted` or `scripted:MILLISECONDS`."""
    try:
        return float(model.partition(":")[2] or 1.0) / 1000
    except ValueError:
        raise ConfigError(f"invalid model {model!r}: expected scripted or scripted:MILLISECONDS") from None

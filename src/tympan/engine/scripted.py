"""A recognizer that ignores the audio and returns the words of a script, for tests, load and demonstrations.

The script depends on frame numbers only. Every cycle of 75 frames (6 s) has ten words, five frames apart (0.4 s) and
four frames long, and then two seconds of pause. Word `n` of a stream is `word<n>`. As the real model does, the engine
releases a word six frames after its end. All streams share one loop, which advances each stream by at most one frame
per step. A step takes 1 ms, or as long as the name of the model says (`scripted:MILLISECONDS`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from tympan.config import ModelSettings
from tympan.engine.base import Deliver, EngineInfo, Observe, StepReport, deliver_events
from tympan.errors import CapacityError, ConfigError, EngineError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Partial, Pcm, Progress, Word

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
    """Return the first frame of word `number`."""
    cycle, place = divmod(number, CYCLE_WORDS)
    return cycle * CYCLE_FRAMES + place * WORD_STRIDE


def seconds_of(frames: int) -> float:
    """Return the duration of `frames`, exact to the hundredth of a second."""
    return frames * 8 / 100


def scripted_words(frames: int) -> list[Word]:
    """Return all words of a stream of `frames` that is finished."""
    words: list[Word] = []
    while (start := word_start_frame(len(words))) < frames:
        end = min(start + WORD_FRAMES, frames)
        words.append(Word(f"word{len(words)}", seconds_of(start), seconds_of(end), 1.0))
    return words


class ScriptedStream:
    """A stream's place in the script, and its queued work."""

    def __init__(self, engine: ScriptedEngine, deliver: Deliver) -> None:
        self._engine = engine
        self.deliver = deliver
        self.work: deque[EngineEvent | None] = deque()  # None stands for a frame
        self._frames = 0
        self._words = 0
        self._next_start = word_start_frame(0)  # of the first word that is not released yet
        self.waiting_frames = 0

    def push(self, frame: Pcm) -> None:
        assert frame.shape == (INFO.frame_samples,)
        self.waiting_frames += 1
        self._queue(None)

    def flush(self, marker: int, partial_frame: Pcm | None = None) -> None:
        self._queue(Flushed(marker))

    def finish(self) -> None:
        self._queue(Finished())

    def close(self) -> None:
        self.work.clear()
        self._engine.release(self)

    def _queue(self, item: EngineEvent | None) -> None:
        self.work.append(item)
        self._engine.wake(self)

    def step(self) -> list[EngineEvent]:
        """Return the events of the next frame, and those of a flush or an end before it."""
        events: list[EngineEvent] = []
        while self.work:
            event = self.work.popleft()
            if event is None:
                self.waiting_frames -= 1
                self._advance(events)
                break
            self._release(self._frames, 1, events)
            events.append(event)
            if isinstance(event, Finished):
                self._engine.release(self)
                break
        return events

    def _advance(self, events: list[EngineEvent]) -> None:
        frame = self._frames
        self._frames += 1
        if self._next_start + WORD_FRAMES + DELAY_FRAMES <= self._frames:
            self._release(self._frames - DELAY_FRAMES, WORD_FRAMES, events)
        if frame == self._next_start:
            events.append(Partial(f"word{self._words}", seconds_of(frame)))
        events.append(Progress(seconds_of(self._frames), PAUSES[frame % CYCLE_FRAMES]))

    def _release(self, frames: int, least_frames: int, events: list[EngineEvent]) -> None:
        """Release the words of which at least `least_frames` lie in the first `frames` of the stream."""
        while self._next_start + least_frames <= frames:
            end = min(self._next_start + WORD_FRAMES, frames)
            events.append(Word(f"word{self._words}", seconds_of(self._next_start), seconds_of(end), 1.0))
            self._words += 1
            self._next_start = word_start_frame(self._words)


class ScriptedEngine:
    """An `Engine` that carries `max_streams` scripted streams.

    Raises:
        ConfigError: The name of the model has an invalid duration.
    """

    def __init__(self, settings: ModelSettings, most_streams: int | None = None) -> None:
        self.info = INFO
        self.capacity = settings.max_streams or min(DEFAULT_CAPACITY, most_streams or DEFAULT_CAPACITY)
        self.observe: Observe | None = None
        self.moved_streams = 0
        self.stage = ""
        self.start_seconds: Mapping[str, float] = {}
        self._step_seconds = _step_seconds(settings.model)
        self._streams: set[ScriptedStream] = set()
        self._busy: dict[ScriptedStream, None] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        return len(self._streams)

    @property
    def ready(self) -> bool:
        return self._task is not None

    def load(self) -> None:
        """Do nothing: the engine reads no files."""

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def open(self, deliver: Deliver, *, live: bool = True) -> ScriptedStream:
        if not self.ready:
            raise EngineError("the scripted engine is not running")
        if self.active >= self.capacity:
            raise CapacityError(f"all {self.capacity} streams are taken; try again later")
        stream = ScriptedStream(self, deliver)
        self._streams.add(stream)
        return stream

    def check(self, longest_seconds: int) -> str:
        """Return an empty string: the engine runs on the event loop that calls this method."""
        return ""

    async def stop(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        self._task = None
        for stream in list(self._streams):
            self.release(stream)
            deliver_events(stream.deliver, [Failed(EngineError("the engine was stopped"))])

    def wake(self, stream: ScriptedStream) -> None:
        if not self._busy:
            self._work.set()
        self._busy[stream] = None

    def release(self, stream: ScriptedStream) -> None:
        self._streams.discard(stream)
        self._busy.pop(stream, None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._busy:
                self._work.clear()
                await self._work.wait()
            batch = list(self._busy)
            began = loop.time()
            await asyncio.sleep(self._step_seconds)
            seconds = loop.time() - began  # longer if the loop had other work
            for stream in batch:
                if stream in self._busy:
                    events = stream.step()
                    if not stream.work:
                        self._busy.pop(stream, None)
                    if events:
                        deliver_events(stream.deliver, events)
            if self.observe is not None:
                waiting = [stream.waiting_frames for stream in self._busy]
                lag = FRAME_SECONDS * max(waiting, default=0)
                self.observe(StepReport(seconds, len(batch), sum(waiting), lag))


def _step_seconds(model: str) -> float:
    """Return the duration of a step for the model `scripted` or `scripted:MILLISECONDS`."""
    try:
        return float(model.partition(":")[2] or 1.0) / 1000
    except ValueError:
        raise ConfigError(f"invalid model {model!r}: expected scripted or scripted:MILLISECONDS") from None

"""Continuous batching: many streams on one model, in one thread that owns the device.

The event loop side hands out slots and queues work; the engine thread asks the scheduler who runs, has the runner
compute, turns tokens into words and posts all events of a step back to the loop at once. Where the device works beside
the thread, a step's words are made while the next step runs; which rows that is, is decided when the device is free
and not before: a frame that came in the meantime does not wait for another step. No lock is held anywhere:
the inbox is a deque, and every slot belongs to the thread from the moment its first frame is in it. A slot is made
new for every stream, so a result that comes late finds its stream closed and is dropped.

Nothing here knows torch: the runner does, behind `Runner`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tympan.engine.base import Deliver, EngineInfo, Observe, StepReport, hand_over
from tympan.engine.batching.handover import release_frames, resolve
from tympan.engine.batching.scheduler import Scheduler
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.batching.step import FinishedStep, Runner, StepResult, scheduler_for, step_report
from tympan.engine.batching.stream import BatchedStream, WorkItem, tell_answers, tell_events
from tympan.engine.batching.watchdog import Watchdog, where
from tympan.errors import CapacityError, EngineError
from tympan.messages import EngineEvent, Failed, Finished
from tympan.transcript.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # before the first, second, … restart in a row
GOOD_RUN_SECONDS = 300.0  # after which a crash is the first again
_SWITCH_SECONDS = 0.0005  # by default a busy event loop may keep the GIL for 5 ms, while the device idles

Trace = Callable[[int, Sequence[float]], None]
"""Told, in the engine thread, the text token and the pause probabilities of every frame, flush frames included, and
those that a stream's model was given again.
"""


class BatchedEngine:
    """`make_runner` is called in the engine thread. If that thread breaks, every stream fails and a new one is started.

    read: what `load` does; `make_runner` must do without. stages: what both tell of how long their parts took.
    stall_seconds: of speech without a word, after which a stream's model is started again; 0 for never.
    device_lost: called in the engine thread after an error; whether no new thread in this process can use the device.
    """

    def __init__(
        self,
        make_runner: Callable[[], Runner],
        trace: Trace | None = None,
        *,
        read: Callable[[], None] = lambda: None,
        stages: StartupTimer | None = None,
        stall_seconds: float = 0.0,
        device_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self.stall_seconds = stall_seconds
        self._make_runner = make_runner
        self._read = read
        self._stages = stages or StartupTimer()
        self._trace = trace
        self.observe: Observe | None = None
        self._ready = False
        self._streams: set[BatchedStream] = set()
        self._free: list[int] = []
        self._inbox: deque[WorkItem] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._began: float | None = None  # when the thread took up what it is at; None while it waits for work
        self._pulse = Watchdog()
        self._lost = ""
        self._device_lost = device_lost
        self._remains: tuple[object, ...] = ()  # of a runner whose device is lost
        self._crashes = 0
        self._ran_since = 0.0
        self._restart: asyncio.TimerHandle | None = None

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def active(self) -> int:
        return len(self._streams)

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def stage(self) -> str:
        return self._stages.current

    @property
    def start_seconds(self) -> Mapping[str, float]:
        return self._stages.seconds

    def load(self) -> None:
        self._read()

    async def start(self) -> None:
        if not self.ready:
            self._events = asyncio.get_running_loop()
            await self._start_thread()

    def open(self, deliver: Deliver, *, live: bool = True) -> BatchedStream:
        if not self.ready:
            raise EngineError("the engine is not running")
        if not self._free:
            raise CapacityError(f"all {self._capacity} streams are taken; try again later")
        stream = BatchedStream(self, self._free.pop(), deliver, live=live)
        self._streams.add(stream)
        return stream

    def check(self, longest_seconds: int) -> str:
        """A thread that hangs in a library's code cannot be ended, and it holds the device."""
        if not self._lost and self._pulse.looks(self._began) >= longest_seconds:
            self._lost = f"the engine has got nothing done for {longest_seconds} s"
            assert self._thread is not None
            logger.critical("%s; it is at\n%s", self._lost, where(self._thread))
            self._ready = False
            self._fail_streams(EngineError(self._lost))
        return self._lost

    async def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._restart is not None:
            self._restart.cancel()
        if self._thread is not None and not self._lost:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._ready = False
        self._fail_streams(EngineError("the engine was stopped"))

    def post(self, letter: WorkItem) -> None:
        self._inbox.append(letter)
        if not self._wake.is_set():  # else the thread looks into the inbox after this anyway; setting takes a lock
            self._wake.set()

    def release(self, stream: BatchedStream) -> None:
        """The stream's slot is free for the next one: the thread works its letters off in order."""
        stream.open = False
        self._streams.discard(stream)
        self._free.append(stream.slot.index)

    # --- the loop's side of the thread ---------------------------------------------------------------------------

    async def _start_thread(self) -> None:
        self._stopping = False
        sys.setswitchinterval(_SWITCH_SECONDS)
        loaded: asyncio.Future[Runner] = self._events.create_future()
        self._thread = threading.Thread(target=self._run, args=(loaded,), name="tympan-engine", daemon=True)
        self._thread.start()
        runner = await loaded
        self._info, self._capacity, self._tokenizer = runner.info, runner.slots, runner.tokenizer
        self._free = list(range(runner.slots))
        self._ready = True
        self._ran_since = self._events.time()

    def _post_results(
        self, results: list[tuple[BatchedStream, list[EngineEvent]]], report: StepReport | None = None
    ) -> None:
        """Runs on the loop, once per step; without a report where no step was needed."""
        for stream, events in results:
            if not stream.open:
                continue
            if isinstance(events[-1], Finished):
                self.release(stream)
            elif isinstance(events[-1], Failed):
                stream.close()  # the thread drops its remaining work
            hand_over(stream.deliver, events)
        if self.observe is not None and report is not None:
            self.observe(report)

    def _crashed(self, error: Exception) -> None:
        """Runs on the loop when the thread has ended with an error."""
        if self._remains:
            self._lost = "the device is lost: only a new process can use it"
            logger.critical("the engine thread broke, and %s", self._lost, exc_info=error)
            self._ready = False
            return self._fail_streams(error)
        logger.error("the engine thread broke; its streams end, and it is started again", exc_info=error)
        if self._ready and self._events.time() - self._ran_since > GOOD_RUN_SECONDS:
            self._crashes = 0
        self._ready = False
        self._fail_streams(error)
        if not self._stopping:
            delay = RESTART_SECONDS[min(self._crashes, len(RESTART_SECONDS) - 1)]
            self._crashes += 1
            self._restart = self._events.call_later(delay, lambda: self._events.create_task(self._start_again()))

    async def _start_again(self) -> None:
        try:
            await self._start_thread()
        except Exception as error:
            self._crashed(error)

    def _fail_streams(self, error: Exception) -> None:
        for stream in list(self._streams):
            self.release(stream)
            hand_over(stream.deliver, [Failed(error)])

    # --- the engine thread ---------------------------------------------------------------------------------------

    def _run(self, loaded: asyncio.Future[Runner]) -> None:
        self._began = None
        try:
            runner = self._make_runner()
        except Exception as error:
            self._end(error)
            self._tell(resolve, loaded, None, error)
            return
        self._inbox.clear()
        self._tell(resolve, loaded, runner, None)
        try:
            self._serve(runner)
        except Exception as error:
            self._end(error, runner)
            del runner, loaded
            self._tell(self._crashed, error)

    def _end(self, error: Exception, runner: Runner | None = None) -> None:
        """Free the memory of what broke; not on a lost device, where that would abort the process."""
        remains = (error, runner) if self._device_lost() else ()
        self._began, self._remains = None, remains  # `check` must not take the wait for the restart for a hang
        if not remains:
            release_frames(error)

    def _serve(self, runner: Runner) -> None:
        """Until told to stop: take in what came, run who is next, tell what it gave."""
        scheduler = scheduler_for(runner)
        untold: FinishedStep | None = None
        while not self._stopping:
            self._wake.clear()
            self._take_in(scheduler)
            batch = scheduler.next()
            self._began = began = time.monotonic()
            result = runner.launch(batch.rows) if batch.rows else None
            if untold is not None:
                self._tell_step(untold, scheduler)
                untold = None
            if batch.answers:
                self._tell(self._post_results, tell_answers(batch))
            if result is None:
                if scheduler.idle:
                    self._began = None
                    self._wake.wait()
                continue
            if not isinstance(result, StepResult):
                result.wait()
            untold = FinishedStep(batch, result, step_report(batch, began, scheduler.waiting_frames))
            if isinstance(result, StepResult):
                self._tell_step(untold, scheduler)
                untold = None

    def _tell_step(self, step: FinishedStep, scheduler: Scheduler) -> None:
        result = step.result if isinstance(step.result, StepResult) else step.result.read()
        if self._trace is not None:
            for token, pauses in zip(result.tokens, result.pauses, strict=True):
                self._trace(token, pauses)
        told = tell_events(step.batch, result, scheduler.replay)
        report = step.report
        if invalid := sum(isinstance(events[-1], Failed) for _, events in told):
            report = replace(report, invalid=invalid)
        self._tell(self._post_results, told, report)

    def _take_in(self, scheduler: Scheduler) -> None:
        while self._inbox:
            slot, item, arrival = self._inbox.popleft()
            if isinstance(item, np.ndarray):
                scheduler.push(slot, arrival, item)
            elif item is None:
                scheduler.drop(slot)
            else:
                scheduler.add_marker(slot, item)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call on the loop; where that is gone already, nobody wants to know."""
        if not self._events.is_closed():
            self._events.call_soon_threadsafe(callback, *arguments)

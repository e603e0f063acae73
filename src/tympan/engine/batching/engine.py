"""An engine that runs many streams on one model, in a thread that owns the device.

The event loop's side hands out slots and queues work in an inbox. The engine thread takes the inbox, forms a batch,
launches it, and posts the events of all its rows back to the event loop at once. If the device works asynchronously,
the events of a step are made while the next step runs. A batch is formed only when the device is free, so a frame that
arrives meanwhile does not wait for another step.

There are no locks: the inbox is a deque, and a slot belongs to the engine thread once its first frame is queued. Every
stream gets a new `Slot`, so a late result finds its stream closed and is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tympan.engine.base import Deliver, EngineInfo, Observe, StepReport, deliver_events
from tympan.engine.batching.restarts import MAX_RESTARTS, RestartPolicy
from tympan.engine.batching.scheduler import Batch, Scheduler
from tympan.engine.batching.startup_timer import StartupTimer
from tympan.engine.batching.step import PendingStep, Runner, StepResult, scheduler_for, step_report
from tympan.engine.batching.stream import BatchedStream, WorkItem, step_events
from tympan.engine.batching.watchdog import Watchdog, current_stack
from tympan.errors import CapacityError, EngineError
from tympan.messages import EngineEvent, Failed, Finished
from tympan.transcript.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005  # by default a busy event loop may hold the GIL for 5 ms, while the device idles

OnToken = Callable[[int, Sequence[float]], None]
"""Called in the engine thread with the text token and the pause probabilities of every frame, including the frames of
flushes and replays.
"""


class BatchedEngine:
    """An `Engine` that runs one model in one thread. If the thread crashes, all streams fail and a new one is started.

    Args:
        make_runner: Loads the model; called in every new engine thread.
        on_token: Callback for every token.
        load: The engine's `load`, which reads files into memory; `make_runner` must work without it.
        timer: Timer that `load` and `make_runner` report their stages to.
        stall_seconds: Speech without a word after which a stream's model is restarted; 0 disables it.
        device_lost: Called in the engine thread after an error; returns whether the device is unusable in this process.
    """

    info: EngineInfo
    tokenizer: Tokenizer
    capacity: int

    def __init__(
        self,
        make_runner: Callable[[], Runner],
        on_token: OnToken | None = None,
        *,
        load: Callable[[], None] = lambda: None,
        timer: StartupTimer | None = None,
        stall_seconds: float = 0.0,
        device_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self.observe: Observe | None = None
        self.moved_streams, self.stall_seconds = 0, stall_seconds
        self.ready = False
        self._make_runner = make_runner
        self._on_token = on_token
        self.load = load
        self._timer = timer or StartupTimer()
        self.start_seconds: Mapping[str, float] = self._timer.seconds
        self._device_lost = device_lost
        self._streams: set[BatchedStream] = set()
        self._free: list[int] = []
        self._inbox: deque[WorkItem] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None  # start of the step that the thread runs; None while it waits for work
        self._watchdog = Watchdog()
        self._fatal_error = ""
        self._kept_on_lost_device: tuple[object, ...] = ()
        self._restarts = RestartPolicy()
        self._running_since = 0.0
        self._restart_timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    @property
    def stage(self) -> str:
        """Current stage of a start."""
        return self._timer.current

    async def start(self) -> None:
        """Start the engine thread and wait until the model is loaded."""
        if not self.ready:
            self._loop = asyncio.get_running_loop()
            await self._start_thread()

    def open(self, deliver: Deliver, *, live: bool = True) -> BatchedStream:
        """Take a slot for a stream."""
        if not self.ready:
            raise EngineError("the engine is not running")
        if not self._free:
            raise CapacityError(f"all {self.capacity} streams are taken; try again later")
        stream = BatchedStream(self, self._free.pop(), deliver, live=live)
        self._streams.add(stream)
        return stream

    def check(self, longest_seconds: int) -> str:
        """Return the fatal error, if any. A thread that hangs cannot be ended, and it holds the device."""
        if not self._fatal_error and self._watchdog.stalled_checks(self._busy_since) >= longest_seconds:
            assert self._thread is not None
            self._fatal_error = f"the engine has made no progress for {longest_seconds} s"
            logger.critical("%s; stack of the engine thread:\n%s", self._fatal_error, current_stack(self._thread))
            self._fail_streams(EngineError(self._fatal_error))
        return self._fatal_error

    async def stop(self) -> None:
        """Stop the engine thread, unless it hangs, and end all streams."""
        self._stopping = True
        self._wake.set()
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        if self._thread is not None and not self._fatal_error:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._fail_streams(EngineError("the engine was stopped"))

    def post(self, item: WorkItem) -> None:
        """Queue work of a stream for the engine thread."""
        self._inbox.append(item)
        if not self._wake.is_set():  # setting takes a lock; if it is set, the thread will look into the inbox anyway
            self._wake.set()

    def release(self, stream: BatchedStream) -> None:
        """Free a stream's slot. The next stream may take it at once, because the thread works off items in order."""
        stream.open = False
        self._streams.discard(stream)
        self._free.append(stream.slot.index)

    # --- on the event loop ---------------------------------------------------------------------------------------

    async def _start_thread(self) -> None:
        self._stopping = False
        sys.setswitchinterval(_SWITCH_SECONDS)
        loaded: asyncio.Future[Runner] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run_thread, args=(loaded,), name="tympan-engine", daemon=True)
        self._thread.start()
        runner = await loaded
        self.info, self.capacity, self.tokenizer = runner.info, runner.slots, runner.tokenizer
        self._free = list(range(runner.slots))
        self.ready = True
        self._running_since = self._loop.time()

    def _deliver_results(
        self, results: list[tuple[BatchedStream, list[EngineEvent]]], report: StepReport | None = None
    ) -> None:
        """Deliver the events of one step, or those that needed no step and have no report."""
        for stream, events in results:
            if not stream.open:
                continue
            if isinstance(events[-1], Finished):
                self.release(stream)
            elif isinstance(events[-1], Failed):
                stream.close()  # the thread drops its remaining work
            deliver_events(stream.deliver, events)
        if self.observe is not None and report is not None:
            self.observe(report)

    def _on_crash(self, error: Exception) -> None:
        delay = self._restarts.next_delay(self._loop.time() - self._running_since if self.ready else 0.0)
        if self._kept_on_lost_device:
            self._fatal_error = "the device is lost: only a new process can use it"
        elif delay is None:
            self._fatal_error = f"the engine failed again after {MAX_RESTARTS} restarts in a row"
        if self._fatal_error or delay is None:
            logger.critical("the engine thread crashed, and %s", self._fatal_error, exc_info=error)
            return self._fail_streams(error)
        logger.error("the engine thread crashed; its streams end, and it is restarted", exc_info=error)
        self._fail_streams(error)
        if not self._stopping:
            self._restart_timer = self._loop.call_later(delay, lambda: self._loop.create_task(self._restart()))

    async def _restart(self) -> None:
        try:
            await self._start_thread()
        except Exception as error:
            self._on_crash(error)

    def _fail_streams(self, error: Exception) -> None:
        self.ready = False
        for stream in list(self._streams):
            self.release(stream)
            deliver_events(stream.deliver, [Failed(error)])

    # --- in the engine thread ------------------------------------------------------------------------------------

    def _run_thread(self, loaded: asyncio.Future[Runner]) -> None:
        self._busy_since = None
        try:
            runner = self._make_runner()
        except Exception as error:
            self._clean_up(error)
            self._call_on_loop(_resolve, loaded, error)
            return
        self._inbox.clear()
        self._call_on_loop(_resolve, loaded, runner)
        try:
            self._run_steps(runner)
        except Exception as error:
            self._clean_up(error, runner)
            del runner, loaded
            self._call_on_loop(self._on_crash, error)

    def _run_steps(self, runner: Runner) -> None:
        """Run steps until `stop`; the events of a step on an asynchronous device are made while the next one runs."""
        scheduler = scheduler_for(runner)
        previous: tuple[Batch, StepResult | PendingStep, StepReport] | None = None
        while not self._stopping:
            self._wake.clear()
            self._take_inbox(scheduler)
            batch = scheduler.next_batch()
            self._busy_since = launched = time.monotonic()
            result = runner.launch(batch.rows) if batch.rows else None
            if previous is not None:
                self._post_events(scheduler, *previous)
                previous = None
            if batch.answers:
                self._call_on_loop(self._deliver_results, [(slot.stream, [marker]) for slot, marker in batch.answers])
            if result is None:
                if scheduler.idle:
                    self._busy_since = None
                    self._wake.wait()
                continue
            if not isinstance(result, StepResult):
                result.wait()
            previous = batch, result, step_report(batch, launched, scheduler)
            if isinstance(result, StepResult):
                self._post_events(scheduler, *previous)
                previous = None

    def _take_inbox(self, scheduler: Scheduler) -> None:
        while self._inbox:
            slot, item, arrival = self._inbox.popleft()
            if isinstance(item, np.ndarray):
                scheduler.push(slot, arrival, item)
            elif item is None:
                scheduler.drop(slot)
            else:
                scheduler.add_marker(slot, item)

    def _post_events(
        self, scheduler: Scheduler, batch: Batch, step: StepResult | PendingStep, report: StepReport
    ) -> None:
        result = step if isinstance(step, StepResult) else step.read()
        if self._on_token is not None:
            for token, pauses in zip(result.tokens, result.pauses, strict=True):
                self._on_token(token, pauses)
        events = step_events(batch, result, scheduler)
        if invalid := sum(isinstance(each[-1], Failed) for _, each in events):
            report = replace(report, invalid=invalid)
        self._call_on_loop(self._deliver_results, events, report)

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _clean_up(self, error: BaseException | None, runner: Runner | None = None) -> None:
        """Free the memory of a broken runner for the next one, although a log may keep the error and its traceback.

        On a lost device, freeing memory would abort the process, so everything is kept.
        """
        self._kept_on_lost_device = kept = (error, runner) if self._device_lost() else ()
        self._busy_since = None  # the wait for the restart is no hang
        while error is not None and not kept:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__


def _resolve(future: asyncio.Future[Runner], outcome: Runner | Exception) -> None:
    if future.cancelled():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)

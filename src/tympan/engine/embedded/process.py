"""The parent's side of a worker process: its slots, its streams and the order of their requests."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from dataclasses import replace
from pathlib import Path

from tympan.audio.samples import as_integers
from tympan.engine.base import Deliver, deliver_events
from tympan.engine.batching.restarts import MAX_RESTARTS
from tympan.engine.batching.watchdog import Watchdog
from tympan.engine.embedded.pipe import Request, pack, read_item_async
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Pcm

logger = logging.getLogger(__name__)

START_SECONDS = 60  # for the process to report that its recognizers are ready; on a free core it takes one or two
RESTART_AFTER_SECONDS = 0.5  # doubled after each start in a row that has failed


class EmbeddedStream:
    """A stream in one slot of a worker, and its queued work."""

    def __init__(self, worker: WorkerProcess, slot: int, deliver: Deliver) -> None:
        self._worker = worker
        self.slot = slot
        self.deliver = deliver
        self.work: deque[Request | Flushed | Finished] = deque([Request(slot, "reset")])

    def push(self, frame: Pcm) -> None:
        self._queue(Request(self.slot, "push", as_integers(frame).tobytes()))

    def flush(self, marker: int, partial_frame: Pcm | None = None) -> None:
        if partial_frame is not None:
            self._queue(Request(self.slot, "push_partial", as_integers(partial_frame).tobytes()))
        self._queue(Flushed(marker))

    def finish(self) -> None:
        self._queue(Finished())

    def close(self) -> None:
        self.work.clear()
        self._worker.release(self)

    def _queue(self, item: Request | Flushed | Finished) -> None:
        self.work.append(item)
        self._worker.wake()


class WorkerProcess:
    """Starts a worker process, sends it one request at a time, and restarts it if it dies.

    Args:
        slots: Number of slots.
        measure: Whether the process has fewer slots if the core carries fewer live streams.

    Attributes:
        slots: Number of slots; if it is measured, final after the start.
        failed_starts: Restarts in a row that have failed.
    """

    def __init__(self, slots: int, *, measure: bool) -> None:
        self.failed_starts = 0
        self.slots = slots
        self._measure = measure
        self._arguments: list[str] = []
        self._free = list(range(slots))
        self._streams: deque[EmbeddedStream] = deque()
        self._work = asyncio.Event()
        self._ready = False
        self._process: Process | None = None
        self._request: Request | None = None  # the one that the process is working on
        self._watchdog = Watchdog()
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        return len(self._streams)

    @property
    def free(self) -> int:
        """Number of free slots; 0 while the process is not running."""
        return len(self._free) if self.alive else 0

    @property
    def alive(self) -> bool:
        return self._ready and self._process is not None and self._process.returncode is None

    async def start(self, model_folder: Path) -> None:
        """Start the process and wait until its recognizers are ready.

        Args:
            model_folder: The folder of a Whisper model in the format of CTranslate2.

        Raises:
            EngineError: The process exited, or was not ready within `START_SECONDS`.
        """
        self._arguments = [str(self.slots), str(model_folder)]
        self.slots = await self._spawn(*(["measure"] if self._measure else []))
        self._free = list(range(self.slots))
        self._arguments[0] = str(self.slots)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._fail_streams(EngineError("the engine was stopped"))
        await self._end_process()

    def open(self, deliver: Deliver) -> EmbeddedStream:
        stream = EmbeddedStream(self, self._free.pop(), deliver)
        self._streams.append(stream)
        return stream

    def release(self, stream: EmbeddedStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self._free.append(stream.slot)

    def check(self, longest_seconds: int) -> None:
        """Kill a process that did not respond for `longest_seconds`; its death causes a restart."""
        if self._watchdog.stalled_checks(self._request) >= longest_seconds and self.alive:
            assert self._process is not None
            logger.error("a recognizer process did not respond for %d s and is killed", longest_seconds)
            self._process.kill()

    def wake(self) -> None:
        self._work.set()

    async def _spawn(self, *options: str) -> int:
        """Start the process, and return its number of slots."""
        command = (sys.executable, "-m", "tympan.engine.embedded.worker", *self._arguments, *options)
        # In a session of its own the process gets no signal that is meant for the server and its process group.
        self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                slots: int = await read_item_async(self._process.stdout)
        except asyncio.IncompleteReadError:
            raise EngineError(f"a recognizer process did not start: exit code {await self._process.wait()}") from None
        except TimeoutError:
            raise EngineError(f"a recognizer process did not start within {START_SECONDS} s and is killed") from None
        self._ready = True
        self.failed_starts = 0
        self._ended = asyncio.create_task(self._process.wait())
        self._ended.add_done_callback(lambda ended: self.wake())
        return slots

    async def _run(self) -> None:
        while True:
            try:
                if not self.alive:
                    self.failed_starts += 1
                    await self._spawn()
                await self._serve()
            except (EngineError, OSError, asyncio.IncompleteReadError) as error:
                logger.error("a recognizer process died; its streams end, and it is restarted: %r", error)
                await self._end_process()
                self._fail_streams(error)
                await asyncio.sleep(RESTART_AFTER_SECONDS * 2 ** min(self.failed_starts, MAX_RESTARTS))

    async def _serve(self) -> None:
        """Work off the queues of the streams, in turn, until the process ends."""
        while True:
            if not self.alive:  # without streams there is no request that would fail
                raise EngineError("the process exited")
            self._work.clear()
            stream = self._next_stream()
            if stream is None:
                await self._work.wait()
                continue
            item = stream.work.popleft()
            if isinstance(item, Request):
                events = await self._send(replace(item, waiting=len(stream.work)))
            else:
                events = [*await self._send(Request(stream.slot, "flush")), item]
            if stream in self._streams:  # else it was closed meanwhile
                if isinstance(item, Finished):
                    self.release(stream)
                deliver_events(stream.deliver, events)

    def _next_stream(self) -> EmbeddedStream | None:
        """Return the next stream in turn that has work."""
        for _ in range(len(self._streams)):
            self._streams.rotate(-1)
            if self._streams[-1].work:
                return self._streams[-1]
        return None

    async def _send(self, request: Request) -> list[EngineEvent]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdin.is_closing():  # writing would raise `RuntimeError` with uvloop
            raise EngineError("the pipe to the process is closed")
        self._request = request
        self._process.stdin.write(pack(request))
        events: list[EngineEvent] = await read_item_async(self._process.stdout)
        self._request = None
        return events

    def _fail_streams(self, error: Exception) -> None:
        for stream in list(self._streams):
            self.release(stream)
            deliver_events(stream.deliver, [Failed(error)])

    async def _end_process(self) -> None:
        self._ready = False
        self._request = None
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

"""The parent's handle on one worker process: its slots, the streams on them, and whose turn it is."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque

from tympan.audio.samples import as_integers
from tympan.engine.base import Deliver, hand_over
from tympan.engine.batching.watchdog import Watchdog
from tympan.engine.embedded.pipe import Flush, Hear, Question, Reset, pack, read_frame_async
from tympan.errors import EngineError
from tympan.messages import EngineEvent, Failed, Finished, Flushed, Pcm

logger = logging.getLogger(__name__)

RESTART_AFTER_SECONDS = 0.5


class EmbeddedStream:
    """One slot of one worker: frames, flushes and the end wait here for their turn."""

    def __init__(self, worker: Worker, slot: int, deliver: Deliver) -> None:
        self._worker = worker
        self.slot = slot
        self.deliver = deliver
        self.work: deque[Question | Flushed | Finished] = deque([Reset(slot)])

    def push(self, frame: Pcm) -> None:
        self._queue(Hear(self.slot, _bytes(frame)))

    def flush(self, marker: int, rest: Pcm | None = None) -> None:
        if rest is not None:
            self._queue(Hear(self.slot, _bytes(rest), counted=False))
        self._queue(Flushed(marker))

    def finish(self) -> None:
        self._queue(Finished())

    def close(self) -> None:
        self.work.clear()
        self._worker.release(self)

    def _queue(self, item: Question | Flushed | Finished) -> None:
        self.work.append(item)
        self._worker.wake()


class Worker:
    """Starts the process, keeps it busy with one question at a time, starts it again if it dies."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._free = list(range(slots))
        self._streams: deque[EmbeddedStream] = deque()
        self._work = asyncio.Event()
        self._warm = asyncio.Event()
        self._process: Process | None = None
        self._asked: Question | None = None
        self._pulse = Watchdog()
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        return len(self._streams)

    @property
    def free(self) -> int:
        """Slots that can be opened now."""
        return len(self._free) if self.alive else 0

    @property
    def alive(self) -> bool:
        return self._warm.is_set() and self._process is not None and self._process.returncode is None

    async def until_alive(self) -> None:
        """Returns when the decoders are warm: at once, or after a restart."""
        await self._warm.wait()

    async def start(self) -> None:
        """Returns when the decoders are warm. Raises `EngineError`."""
        await self._spawn()
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
        """A process that has not answered for so long is killed, and so is found dead."""
        if self._pulse.looks(self._asked) >= longest_seconds and self.alive:
            assert self._process is not None
            logger.error("a recognizer process has not answered for %d s and is killed", longest_seconds)
            self._process.kill()

    def wake(self) -> None:
        self._work.set()

    async def _spawn(self) -> None:
        command = (sys.executable, "-m", "tympan.engine.embedded.worker", str(self._slots))
        self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert self._process.stdout is not None
        try:
            await read_frame_async(self._process.stdout)
        except asyncio.IncompleteReadError:
            raise EngineError(f"a recognizer process did not start: exit code {await self._process.wait()}") from None
        self._warm.set()
        self._ended = asyncio.create_task(self._process.wait())
        self._ended.add_done_callback(lambda ended: self.wake())

    async def _run(self) -> None:
        while True:
            try:
                if not self.alive:
                    await self._spawn()
                await self._serve()
            except (EngineError, OSError, asyncio.IncompleteReadError) as error:
                logger.error("a recognizer process died, its streams end: %r", error)
                await self._end_process()
                self._fail_streams(error)
                await asyncio.sleep(RESTART_AFTER_SECONDS)

    async def _serve(self) -> None:
        """One piece of work after the other, the streams in turn, for as long as the process lives."""
        while True:
            if not self.alive:  # nobody opens a stream on a dead process: no question would find it so
                raise EngineError("it ended by itself")
            self._work.clear()
            stream = self._next()
            if stream is None:
                await self._work.wait()
                continue
            item = stream.work.popleft()
            if isinstance(item, Reset | Hear | Flush):
                events = await self._ask(item)
            else:
                events = [*await self._ask(Flush(stream.slot)), item]
            if stream in self._streams:  # else it was closed meanwhile
                if isinstance(item, Finished):
                    self.release(stream)
                hand_over(stream.deliver, events)

    def _next(self) -> EmbeddedStream | None:
        """The next stream in turn that has work; it goes to the end of the row."""
        for _ in range(len(self._streams)):
            stream = self._streams.popleft()
            self._streams.append(stream)
            if stream.work:
                return stream
        return None

    async def _ask(self, question: Question) -> list[EngineEvent]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdin.is_closing():  # uvloop's would raise `RuntimeError`
            raise EngineError("its pipe is closed")
        self._asked = question
        self._process.stdin.write(pack(question))
        events: list[EngineEvent] = await read_frame_async(self._process.stdout)
        self._asked = None
        return events

    def _fail_streams(self, error: Exception) -> None:
        for stream in list(self._streams):
            self.release(stream)
            hand_over(stream.deliver, [Failed(error)])

    async def _end_process(self) -> None:
        self._warm.clear()
        self._asked = None
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()  # it holds nothing that needs saving
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def _bytes(frame: Pcm) -> bytes:
    return as_integers(frame).tobytes()

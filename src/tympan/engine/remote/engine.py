"""An `Engine` whose model runs in other processes; streams outlive the process that runs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from tympan.engine.base import Deliver, EngineInfo, Observe, StepReport
from tympan.engine.remote.link import EngineConnection, EngineLink
from tympan.engine.remote.process import EngineProcess
from tympan.engine.remote.stream import RemoteStream
from tympan.errors import CapacityError, EngineError
from tympan.messages import EngineEvent

logger = logging.getLogger(__name__)


class RemoteEngine:
    """Spreads its streams evenly over the processes, and moves those of a process that is lost.

    Args:
        commands: For each process to start, the arguments of the Python interpreter and additional environment
            variables.
        sockets: The Unix sockets of processes that another process of the server starts.

    Attributes:
        moved_streams: How often a stream has continued in another process.
        processes: The processes.
    """

    def __init__(
        self, commands: Sequence[tuple[Sequence[str], Mapping[str, str]]] = (), sockets: Sequence[str] = ()
    ) -> None:
        self.observe: Observe | None = None
        self.moved_streams = 0
        self.processes: list[EngineLink] = [
            EngineProcess(number, command, self, environment)
            for number, (command, environment) in enumerate(commands, 1)
        ]
        self.processes += [EngineConnection(number, path, self) for number, path in enumerate(sockets, 1)]
        self._streams: dict[int, RemoteStream] = {}  # by a number that no stream of another process has
        self._waiting: dict[RemoteStream, None] = {}  # for a process with room
        self._numbers = 0

    @property
    def info(self) -> EngineInfo:
        """Description of the engine, after its start."""
        return self.processes[0].info

    @property
    def capacity(self) -> int:
        """Streams of all processes that run."""
        return sum(process.capacity for process in self.processes if process.ready)

    @property
    def active(self) -> int:
        """Streams of this server and of all others that use the processes."""
        others = sum(process.others for process in self.processes if process.ready)
        return len(self._streams) + len(self._waiting) + others

    @property
    def ready(self) -> bool:
        return any(process.ready for process in self.processes)

    @property
    def stage(self) -> str:
        return next((process.stage for process in self.processes if process.stage), "")

    @property
    def start_seconds(self) -> Mapping[str, float]:
        return self.processes[0].start_seconds

    def load(self) -> None:
        """Do nothing: the processes read the model."""

    async def start(self) -> None:
        if self.ready:
            return
        await asyncio.gather(*(process.start() for process in self.processes))

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))
        for stream in [*self._streams.values(), *self._waiting]:
            stream.fail(EngineError("the engine was stopped"))

    def open(self, deliver: Deliver, *, live: bool = True) -> RemoteStream:
        if not self.ready:
            raise EngineError("the engine is not running")
        process = self._least_used()
        if process is None or self._waiting:
            raise CapacityError(f"all {self.capacity} streams are taken; try again later")
        stream = RemoteStream(self, deliver, live=live)
        self._attach(stream, process)
        return stream

    def check(self, longest_seconds: int) -> str:
        """Kill processes that hang; it is a fatal error if none can be started."""
        for process in self.processes:
            process.check(longest_seconds)
        self._attach_waiting()
        errors = [process.fatal_error for process in self.processes]
        return errors[0] if all(errors) else ""

    # --- calls of streams ----------------------------------------------------------------------------------------

    def release(self, stream: RemoteStream) -> None:
        """Close a stream in its process, before another one takes its slot."""
        if stream.process is not None:
            stream.process.close(stream.number)
        self.forget(stream)

    def forget(self, stream: RemoteStream) -> None:
        """Free the slot of a stream that has ended. May be called more than once."""
        self._waiting.pop(stream, None)
        if stream.process is not None:
            self._remove(stream, stream.process)
            self._attach_waiting()

    # --- calls of processes --------------------------------------------------------------------------------------

    def on_ready(self, process: EngineLink) -> None:
        self._attach_waiting()

    def on_lost(self, process: EngineLink) -> None:
        lost = [stream for stream in self._streams.values() if stream.process is process]
        for stream in lost:
            self._remove(stream, process)
            stream.has_moved = True
            self._waiting[stream] = None
        self.moved_streams += len(lost)
        if all(each.fatal_error for each in self.processes):
            for stream in list(self._waiting):
                stream.fail(EngineError("no engine process can be started"))
        self._attach_waiting()

    def on_refused(self, stream: int) -> None:
        refused = self._streams.get(stream)
        if refused is None or refused.process is None:
            return
        if refused.has_moved:  # another server has taken the room at the same time
            self._remove(refused, refused.process)
            self._waiting[refused] = None
        else:
            refused.fail(CapacityError("all streams are taken; try again later"))

    def on_room(self, process: EngineLink) -> None:
        self._attach_waiting()

    def on_events(self, stream: int, events: Sequence[EngineEvent]) -> None:
        receiver = self._streams.get(stream)
        if receiver is not None:
            receiver.receive(events)

    def on_step(self, report: StepReport) -> None:
        if self.observe is not None:
            self.observe(report)

    def _least_used(self) -> EngineLink | None:
        """Return the process with the smallest share of this server's streams, of several the one with the most room.

        What is known of other servers' streams is a moment old: if their number decided, servers that open many
        streams at the same time would all use one process in turn and then the other.
        """
        with_room = [process for process in self.processes if process.free > 0]
        return min(with_room, key=lambda each: (each.active / each.capacity, -each.free), default=None)

    def _attach(self, stream: RemoteStream, process: EngineLink) -> None:
        self._numbers = (self._numbers + 1) % (1 << 32)
        self._streams[self._numbers] = stream
        process.active += 1
        stream.attach(process, self._numbers)

    def _remove(self, stream: RemoteStream, process: EngineLink) -> None:
        del self._streams[stream.number]
        process.active -= 1
        stream.detach()

    def _attach_waiting(self) -> None:
        while self._waiting and (process := self._least_used()) is not None:
            stream = next(iter(self._waiting))
            del self._waiting[stream]
            self._attach(stream, process)

"""One stream of a `RemoteEngine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tympan.engine.base import Deliver, deliver_events
from tympan.engine.remote.replay import ReplayBuffer, flush_items
from tympan.engine.remote.wire import Kind, frame_item, item
from tympan.messages import EngineEvent, Failed, Finished, Pcm

if TYPE_CHECKING:
    from tympan.engine.remote.engine import RemoteEngine
    from tympan.engine.remote.link import EngineLink


class RemoteStream:
    """A stream, wherever it runs; while no process has room for it, it keeps what is sent.

    Attributes:
        process: The process that runs it, or None.
        number: Its number in that process's messages.
        live: Whether the audio arrives in real time.
        has_moved: Whether a process that ran it was lost.
    """

    def __init__(self, engine: RemoteEngine, deliver: Deliver, *, live: bool) -> None:
        self.process: EngineLink | None = None
        self.number = 0
        self.live = live
        self.has_moved = False
        self._engine = engine
        self._deliver = deliver
        self._buffer = ReplayBuffer(engine.info.frame_seconds)

    def push(self, frame: Pcm) -> None:
        self._buffer.add_frame(frame)
        if self.process is not None:
            self.process.send(*frame_item(self.number, frame))

    def flush(self, marker: int, partial_frame: Pcm | None = None) -> None:
        flush = self._buffer.add_flush(marker, partial_frame)
        if self.process is not None:
            self.process.send(*flush_items(self.number, flush))

    def finish(self) -> None:
        self._buffer.finish()
        if self.process is not None:
            self.process.send(item(self.number, Kind.FINISH))

    def close(self) -> None:
        self._engine.release(self)

    def attach(self, process: EngineLink, number: int) -> None:
        """Open the stream in a process, and run what it has to run again."""
        self.process, self.number = process, number
        process.send(*self._buffer.replay(number, live=self.live))

    def detach(self) -> None:
        """Forget the process."""
        self.process = None

    def receive(self, events: Sequence[EngineEvent]) -> None:
        """Deliver events of the process."""
        events = self._buffer.receive(events)
        if not events:
            return
        if isinstance(events[-1], Finished | Failed):
            self._engine.forget(self)
        deliver_events(self._deliver, events)

    def fail(self, error: Exception) -> None:
        """End the stream with an error."""
        self._engine.forget(self)
        deliver_events(self._deliver, [Failed(error)])

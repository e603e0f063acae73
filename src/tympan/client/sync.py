"""`connect_sync`: the client for programs without an event loop. It runs `connect` in a thread.

with tympan.connect_sync("ws://localhost:8000") as stream:
    for event in stream.transcribe(blocks):
        ...
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

from tympan.client import wire
from tympan.client.backoff import Backoff
from tympan.client.source import AudioLike
from tympan.client.stream import Stream, connect
from tympan.client.transport import Transport, open_websocket
from tympan.messages import Event, Ready

T = TypeVar("T")


def connect_sync(
    url: str,
    *,
    token: str | None = None,
    encoding: str = "s16le",
    sample_rate: int | None = None,
    events: Collection[str] = wire.DEFAULT_EVENTS,
    backoff: Backoff | None = None,
    transport: Transport = open_websocket,
) -> SyncStream:
    """Return a stream to the server at `url`, to be used with `with`; arguments and errors as for `tympan.connect`."""
    return SyncStream(
        connect(
            url,
            token=token,
            encoding=encoding,
            sample_rate=sample_rate,
            events=events,
            backoff=backoff,
            transport=transport,
        )
    )


class SyncStream:
    """A `Stream` with blocking methods. One thread may send while another one iterates."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = LoopThread()

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._loop.call(self._stream.__aenter__())
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._loop.call(self._stream.__aexit__(kind, error, trace))
        finally:
            self._loop.stop()

    @property
    def ready(self) -> Ready:
        """See `Stream.ready`."""
        return self._stream.ready

    def send(self, audio: AudioLike) -> None:
        """See `Stream.send`."""
        self._loop.call(self._stream.send(audio))

    def flush(self) -> int:
        """See `Stream.flush`."""
        return self._loop.call(self._stream.flush())

    def keepalive(self) -> None:
        """See `Stream.keepalive`."""
        self._loop.call(self._stream.keepalive())

    def finish(self) -> None:
        """See `Stream.finish`."""
        self._loop.call(self._stream.finish())

    def __iter__(self) -> Iterator[Event]:
        return self._events(self._stream)

    def transcribe(self, source: Iterable[AudioLike]) -> Iterator[Event]:
        """See `Stream.transcribe`. Another thread advances `source`."""
        return self._events(self._stream.transcribe(source))

    def _events(self, events: AsyncIterator[Event]) -> Iterator[Event]:
        while (event := self._loop.call(_next(events))) is not None:
            yield event


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="tympan-client", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until its loop runs."""
        self._thread.start()
        self._started.wait()

    def call(self, work: Coroutine[None, None, T]) -> T:
        """Run `work` in the loop and return its result; an interrupted caller cancels it."""
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise RuntimeError("use the stream inside its `with` block")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """Stop the loop with everything that runs in it, and wait for the thread."""
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        # On exit the runner cancels remaining tasks, closes generators and the executor, then the loop.
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._started.set()
        await self._stopping.wait()

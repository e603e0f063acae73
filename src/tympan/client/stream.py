"""`connect`: stream audio to a server and receive its events, over lost connections and restarts of the server.

    async with tympan.connect("ws://localhost:8000") as stream:
        async for event in stream.transcribe(blocks):
            ...

One task of the stream reads the connection and another writes it. `send` appends audio to the send buffer and waits
until the socket has accepted it. When the connection is lost or the server restarts, the stream opens the next one and
sends what the buffer still holds. Event times are seconds of audio sent on this stream, whatever the session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from types import TracebackType
from typing import Final, Self

import msgspec

from tympan.client import wire
from tympan.client.backoff import Backoff
from tympan.client.connection import ReconnectingConnection, bad_message, with_server_error
from tympan.client.events import EventQueue, RestartFilter
from tympan.client.send_buffer import SendBuffer
from tympan.client.source import AudioLike, AudioSource, items
from tympan.client.transport import Connection, NoConnectionError, Transport, open_websocket
from tympan.errors import ServerError
from tympan.messages import Complete, Event, Flushed, Lag, Ready, Word

UNRELEASED_SECONDS: Final = 30.0
"""A word arrives at the latest this long after its audio; older audio need not be sent again."""


def connect(
    url: str,
    *,
    token: str | None = None,
    encoding: str = "s16le",
    sample_rate: int | None = None,
    events: Collection[str] = wire.DEFAULT_EVENTS,
    backoff: Backoff | None = None,
    transport: Transport = open_websocket,
) -> Stream:
    """Return a stream to the server at `url`, to be used with `async with`.

    Args:
        url: `ws://host:port` or `wss://host`, with the prefix if a proxy serves it under one: `wss://host/stt`.
        token: An API key.
        encoding: Encoding of the audio on the wire. Sample arrays can be sent as `s16le` or `f32le`; any other
            encoding takes bytes.
        sample_rate: Sample rate of raw audio in Hz; by default 24,000, and 8,000 for `mulaw` and `alaw`.
        events: Names of the events to receive. `warning`, `flushed` and `complete` are always received.
        backoff: When to try again if the server is full or restarts or the connection is lost.
            `Backoff(attempts=0)` disables this.
        transport: Opens a connection; another one can be used for tests or a custom TLS context.

    Raises:
        ParameterError: `url` is not the address of a server.
        ServerError: On entering the stream: the server cannot be reached, or refuses.
    """
    if isinstance(events, str):
        events = [name.strip() for name in events.split(",")]
    audio = wire.AudioFormat.of(encoding, sample_rate)
    address = wire.stream_url(url, audio, [*wire.NEEDED_EVENTS, *events])
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = ReconnectingConnection(address, headers, backoff or Backoff(), transport, SendBuffer(audio))
    return Stream(connection, audio, wire.event_types(events))


class Stream:
    """One transcription, made by `connect`. Iterate over it, from one task at a time, to receive events."""

    def __init__(
        self, connection: ReconnectingConnection, audio: wire.AudioFormat, wanted: frozenset[type[Event]]
    ) -> None:
        self._connection = connection
        self._buffer = connection.buffer
        self._audio = audio
        self._wanted = wanted
        self._filter = RestartFilter(wanted)
        self._queue = EventQueue()
        self._ready: Ready | None = None
        self._complete: Complete | None = None
        self._words = 0
        self._markers = 0
        self._to_send = asyncio.Event()
        self._sent = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        try:
            self._ready = await self._connection.open()
        except NoConnectionError as ended:
            raise ended.as_server_error() from None
        self._deliver(self._ready)
        self._start(self._run(), self._run_done)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A task that was cancelled before its first step has not closed the connection.
        await self._connection.close()

    @property
    def ready(self) -> Ready:
        """The model, engine and delay that the server reported when the stream was opened."""
        assert self._ready is not None, "use the stream inside `async with`"
        return self._ready

    async def send(self, audio: AudioLike) -> None:
        """Send audio and wait until the socket has accepted it, across a reconnection if necessary.

        The audio of a cancelled `send` is sent nevertheless.

        Args:
            audio: Mono samples `[n]`, floats in [-1, 1] or int16, or bytes in the declared encoding.

        Raises:
            ParameterError: The samples have the wrong shape or type, or the encoding takes bytes only.
            ServerError: The stream has ended.
        """
        self._check_open()
        self._buffer.append(self._audio.encode(audio))
        await self._wait_until_sent()

    async def flush(self) -> int:
        """Request all words of the audio sent so far.

        Returns:
            The marker of the `Flushed` event that follows these words.
        """
        self._check_open()
        self._markers += 1
        self._buffer.flush(self._markers)
        await self._wait_until_sent()
        return self._markers

    async def finish(self) -> None:
        """End the audio: the last words and `Complete` follow, then iteration ends. May be called more than once."""
        self._queue.raise_error()
        self._buffer.finish()
        await self._wait_until_sent()

    async def keepalive(self) -> None:
        """Reset the server's idle timeout while no audio is sent."""
        self._check_open()
        if self._connection.current is not None:
            with contextlib.suppress(NoConnectionError):  # the reading task handles it
                await self._connection.current.send(wire.KEEPALIVE)

    def _check_open(self) -> None:
        self._queue.raise_error()
        if self._buffer.finishing:
            raise RuntimeError("the stream has been finished: nothing more can be sent on it")

    async def _wait_until_sent(self) -> None:
        self._to_send.set()
        while not self._buffer.drained and not self._queue.ended:
            self._sent.clear()
            await self._sent.wait()
        self._queue.raise_error()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._queue.get()

    async def transcribe(self, source: AudioSource) -> AsyncGenerator[Event, None]:
        """Send all audio of `source`, finish, and yield the events meanwhile; errors of `source` are raised here."""
        feeder = self._start(self._feed(source), self._feed_done)
        try:
            async for event in self:
                yield event
        finally:
            feeder.cancel()

    async def _feed(self, source: AudioSource) -> None:
        async for audio in items(source):
            await self.send(audio)
        await self.finish()

    def _feed_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._queue.end(error)

    async def _run(self) -> None:
        while (ended := await self._run_connection()) is not None:
            if self._complete is not None and ended.code == 1000:
                break
            try:
                same_session = await self._connection.reopen(ended)
            except ServerError:
                for event in self._filter.release():
                    self._take(event)
                if self._all_answered():
                    break
                raise
            if not same_session:
                self._complete = None
                for event in self._filter.end_session():
                    self._deliver(event)
        assert self._complete is not None
        self._deliver(self._complete)

    async def _run_connection(self) -> NoConnectionError | None:
        """Read and write the current connection; return how it ended, or None if everything has been answered."""
        connection = self._connection.current
        assert connection is not None
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(connection))
                try:
                    return await self._read(connection)
                finally:
                    writer.cancel()
        finally:
            await connection.close()

    async def _write(self, connection: Connection) -> None:
        with contextlib.suppress(NoConnectionError):  # the reading task handles it
            while True:
                for frame in self._buffer.frames():
                    await connection.send(frame)
                self._sent.set()
                self._to_send.clear()
                await self._to_send.wait()

    async def _read(self, connection: Connection) -> NoConnectionError | None:
        failure: wire.Failure | None = None
        while not self._all_answered():
            try:
                message = wire.decode(await connection.receive())
            except msgspec.DecodeError as error:
                return bad_message(error)
            except NoConnectionError as ended:
                return with_server_error(ended, failure)
            self._connection.count(message)
            if isinstance(message, wire.Failure):
                failure = message
            elif isinstance(message, Event):
                self._take(message)
        return None

    def _all_answered(self) -> bool:
        return self._complete is not None and self._buffer.finishing and self._buffer.answered

    def _take(self, event: Event) -> None:
        """Process an event of the current session, and deliver it in the time of the whole stream."""
        whole = wire.shifted(event, self._buffer.base_seconds)
        if self._filter.hold(event, whole):
            return
        match event:
            case Ready():
                return
            case Word():
                self._words += 1
                self._connection.reset_attempts()
                self._acknowledge(event.end)
            case Lag():
                self._buffer.transcribed(event.processed)
                self._to_send.set()
                self._acknowledge(event.processed - UNRELEASED_SECONDS)
            case Flushed() if not self._buffer.answer(event.marker):
                return
            case Complete():
                self._acknowledge(event.audio_seconds)
                self._complete = Complete(event.audio_seconds + self._buffer.base_seconds, self._words)
                return
        self._filter.delivered(whole)
        self._deliver(whole)

    def _acknowledge(self, seconds: float) -> None:
        if self._buffer.acknowledge(seconds):
            self._connection.reset_attempts()

    def _deliver(self, event: Event) -> None:
        if type(event) in self._wanted:
            self._queue.put(event)

    def _start(
        self, work: Coroutine[None, None, None], done: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(done)
        return task

    def _run_done(self, task: asyncio.Task[None]) -> None:
        self._queue.end(None if task.cancelled() else task.exception())
        self._sent.set()

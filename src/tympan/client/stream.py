"""`connect`: stream audio to a server and receive its events, over lost connections and restarts of the server.

    async with tympan.connect("ws://localhost:8000") as stream:
        async for event in stream.transcribe(blocks):
            ...

One task per stream reads the connection and, beside it, one writes it. `send` puts audio into the outbox and waits
until the socket has taken it. When the connection is lost or the server restarts, the task opens the next one and
writes what the outbox still holds; the times of events go on from there, so one clock runs through: seconds of audio
sent by this stream.
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
from tympan.client.dialer import Dialer, bad_message, last_words
from tympan.client.line import Line
from tympan.client.mailbox import Mailbox
from tympan.client.outbox import Outbox
from tympan.client.seam import Seam
from tympan.client.source import AudioLike, AudioSource, items
from tympan.client.transport import Connection, NoConnectionError, Transport, open_websocket
from tympan.errors import ServerError
from tympan.messages import Complete, Event, Flushed, Lag, Ready, Word

UNRELEASED_SECONDS: Final = 30.0
"""A word is released at the latest this long after it was heard; audio older than that need not be sent again."""


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
    """A stream to the server at `url`, for `async with`.

    Args:
        url: `ws://host:port` or `wss://host`; the path `/v1/stream` is added where there is none.
        token: an API key.
        encoding: how audio is written on the wire. Samples can be sent as `s16le` and `f32le`, anything else as bytes.
        sample_rate: samples per second of raw audio; 24,000 if not given (8,000 for `mulaw` and `alaw`).
        events: which events to receive, by their wire names; warnings, answers to flushes and the end always come.
        backoff: how to wait and try again when the server is full or restarts or the connection is lost;
            `Backoff(attempts=0)` never does.

    Raises:
        ParameterError: `url` is not the address of a server.
        ServerError: on entering, when the server cannot be reached or refuses.
    """
    if isinstance(events, str):
        events = [name.strip() for name in events.split(",")]
    audio = wire.AudioFormat.of(encoding, sample_rate)
    address = wire.stream_url(url, audio, [*wire.NEEDED_EVENTS, *events])
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    dialer = Dialer(address, headers, backoff or Backoff(), transport)
    return Stream(dialer, audio, wire.event_types(events))


class Stream:
    """One transcription. Made by `connect`; iterate over it to receive events, from one task at a time."""

    def __init__(self, dialer: Dialer, audio: wire.AudioFormat, wanted: frozenset[type[Event]]) -> None:
        self._audio = audio
        self._wanted = wanted
        self._outbox = Outbox(audio)
        self._line = Line(dialer, self._outbox)
        self._seam = Seam(wanted)
        self._mailbox = Mailbox()
        self._ready: Ready | None = None
        self._complete: Complete | None = None
        self._words = 0
        self._markers = 0
        self._to_send = asyncio.Event()
        self._sent = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        try:
            self._ready = await self._line.open()
        except NoConnectionError as ended:
            raise ended.as_server_error() from None
        self._deliver(self._ready)
        self._start(self._run(), self._run_done)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A task that is cancelled before its first step has closed nothing.
        await self._line.close()

    @property
    def ready(self) -> Ready:
        """What the server said when the stream was opened: its model, engine and delay."""
        assert self._ready is not None, "a stream is ready inside `async with`"
        return self._ready

    # --- Down: audio and commands ------------------------------------------------------------------------------------

    async def send(self, audio: AudioLike) -> None:
        """Send audio and wait until the socket has taken it, over a reconnection if there is one.

        A cancelled `send` does not take its audio back: it goes out while the stream lives.

        Raises:
            ParameterError: samples of a wrong shape or kind, or for an encoding that takes bytes only.
            ServerError: the stream has ended.
        """
        self._check_open()
        self._outbox.append(self._audio.encode(audio))
        await self._hand_over()

    async def flush(self) -> int:
        """Ask for every word of the audio sent so far; answered by one `Flushed` with the mark that is returned."""
        self._check_open()
        self._markers += 1
        self._outbox.flush(self._markers)
        await self._hand_over()
        return self._markers

    async def finish(self) -> None:
        """No more audio follows: the last words and `Complete` come, then iteration ends. Safe to call twice."""
        self._mailbox.raise_error()
        self._outbox.finish()
        await self._hand_over()

    async def keepalive(self) -> None:
        """Tell the server that this client, silent for now, is still there: it drops one that says nothing for long."""
        self._check_open()
        if self._line.connection is not None:
            with contextlib.suppress(NoConnectionError):  # the stream's own task sees to that
                await self._line.connection.send(wire.KEEPALIVE)

    def _check_open(self) -> None:
        self._mailbox.raise_error()
        if self._outbox.finishing:
            raise RuntimeError("this stream has been finished: nothing more can be sent on it")

    async def _hand_over(self) -> None:
        self._to_send.set()
        while not self._outbox.drained and not self._mailbox.ended:
            self._sent.clear()
            await self._sent.wait()
        self._mailbox.raise_error()

    # --- Up: events --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._mailbox.take()

    async def transcribe(self, source: AudioSource) -> AsyncGenerator[Event, None]:
        """Send everything from `source`, finish, and receive meanwhile. What `source` raises is raised here."""
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
            self._mailbox.end(error)

    # --- The stream's own task ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while (ended := await self._converse()) is not None:
            if self._complete is not None and ended.code == 1000:
                break
            try:
                same_session = await self._line.reopen(ended)
            except ServerError:
                for event in self._seam.release():
                    self._take(event)
                if self._all_answered():
                    break
                raise
            if not same_session:
                self._complete = None
                for event in self._seam.close():
                    self._deliver(event)
        assert self._complete is not None
        self._deliver(self._complete)

    async def _converse(self) -> NoConnectionError | None:
        """Read and write the current connection: how it ended, or None when everything has been answered."""
        connection = self._line.connection
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
        with contextlib.suppress(NoConnectionError):  # the reader learns why
            while True:
                for frame in self._outbox.frames():
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
                return last_words(ended, failure)
            self._line.count(message)
            if isinstance(message, wire.Failure):
                failure = message
            elif isinstance(message, Event):
                self._take(message)
        return None

    def _all_answered(self) -> bool:
        return self._complete is not None and self._outbox.finishing and self._outbox.answered

    def _take(self, event: Event) -> None:
        """Account for one event of the current session, and pass it on with the time of the whole stream."""
        whole = wire.shifted(event, self._outbox.base_seconds)
        if self._seam.keeps_back(event, whole):
            return
        match event:
            case Ready():
                return
            case Word():
                self._words += 1
                self._line.progress()
                self._acknowledge(event.end)
            case Lag():
                self._outbox.transcribed(event.processed)
                self._to_send.set()
                self._acknowledge(event.processed - UNRELEASED_SECONDS)
            case Flushed() if not self._outbox.answer(event.marker):
                return
            case Complete():
                self._acknowledge(event.audio_seconds)
                self._complete = Complete(event.audio_seconds + self._outbox.base_seconds, self._words)
                return
        self._seam.told(whole)
        self._deliver(whole)

    def _acknowledge(self, seconds: float) -> None:
        if self._outbox.acknowledge(seconds):
            self._line.progress()

    def _deliver(self, event: Event) -> None:
        if type(event) in self._wanted:
            self._mailbox.put(event)

    def _start(
        self, work: Coroutine[None, None, None], done: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(done)
        return task

    def _run_done(self, task: asyncio.Task[None]) -> None:
        self._mailbox.end(None if task.cancelled() else task.exception())
        self._sent.set()

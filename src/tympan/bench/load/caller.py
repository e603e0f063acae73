"""One session of a load: sends audio in real time and records what arrives.

Chunk *n* is due when a microphone that was switched on at `Record.began` would have recorded it. A late chunk does not
delay the next one, and delays are measured from due times, so that a slow client does not hide a slow server.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from tympan.bench.load.readers import Message
from tympan.bench.load.spec import LoadSpec
from tympan.bench.load.speech import Speech
from tympan.bench.load.websocket import NotOpenError, WebSocket, frame, open_websocket

END_TIMEOUT_SECONDS = 30.0
"""Longest time from the end of the audio to the end of the session."""

UNSENT_LIMIT_BYTES = 4 * 2**20
"""Unread bytes after which the server counts as stalled."""


class Messages:
    """The framed messages that all sessions send: chunks of audio, repeated, and flushes after some of them."""

    def __init__(self, spec: LoadSpec, speech: Speech) -> None:
        dialect = spec.dialect
        self.dialect = dialect
        self.url = spec.address
        self.headers: Mapping[str, str] = (
            {"Authorization": f"Bearer {spec.token}", "kyutai-api-key": spec.token} if spec.token else {}
        )
        self.chunk_seconds = spec.chunk_seconds
        self.chunks = [frame(dialect.audio(chunk)) for chunk in speech.chunks]
        self.setup = [frame(message) for message in dialect.setup]
        self.flush = frame(dialect.flush)
        self.finish = self.flush if dialect.finish is None else frame(dialect.finish)
        self.flush_points = speech.flush_points(spec.flush_every, spec.session_chunks)


@dataclass
class Record:
    """What happened in one session. Moments are of `time.monotonic`, durations in seconds.

    Attributes:
        dialled: When the connection was requested.
        handshake_seconds: Duration of the opening handshake; None if it failed.
        began: When the audio began.
        sent_chunks: Chunks of audio sent.
        finished: Whether all audio was sent and the server closed the session normally.
        error: Kind of failure.
        detail: The server's error message.
        texts: Words in order of arrival.
        arrivals: Moment of each word's arrival.
        flushes: Moment of each flush, and the time until its answer.
        finish_seconds: From the end of the audio to the end of the session.
        lags: Moments, and seconds of audio that the server had not transcribed then.
        late_seconds: Delay of each chunk after it was due: the load generator's own delay.
    """

    dialled: float
    handshake_seconds: float | None = None
    began: float = 0.0
    sent_chunks: int = 0
    finished: bool = False
    error: str | None = None
    detail: str = ""
    texts: list[str] = field(default_factory=list)
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    flushes: list[tuple[float, float]] = field(default_factory=list)
    finish_seconds: float | None = None
    lags: list[tuple[float, float]] = field(default_factory=list)
    late_seconds: array[float] = field(default_factory=lambda: array("f"))


class Caller:
    """The client of one session: `MessageHandler` of its WebSocket and `Listener` of its dialect's reader."""

    def __init__(self, messages: Messages, chunks: int) -> None:
        self._messages = messages
        self._chunks = chunks
        self._read = messages.dialect.reader(self)
        self._flushes: deque[float] = deque()
        self._finishing_at: float | None = None
        self._websocket: WebSocket | None = None
        self._timer: asyncio.Handle | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.record = Record(time.monotonic())

    async def run(self) -> Record:
        """Connect, send all audio, and return the record once the session has ended."""
        record = self.record
        try:
            self._websocket = await open_websocket(self._messages.url, self._messages.headers, self)
        except NotOpenError as error:
            record.error = str(error)
            return record
        record.began = time.monotonic()
        record.handshake_seconds = record.began - record.dialled
        for message in self._messages.setup:
            self._websocket.send(message)
        self._schedule_chunk()
        try:
            await self._ended
        finally:
            self._end()
            self._websocket.abort()
        return record

    def _schedule_chunk(self) -> None:
        due = self.record.began + (self.record.sent_chunks + 1) * self._messages.chunk_seconds
        self._timer = asyncio.get_running_loop().call_at(due, self._send_chunk, due)

    def _send_chunk(self, due: float) -> None:
        websocket, record, messages = self._websocket, self.record, self._messages
        assert websocket is not None
        now = time.monotonic()
        record.late_seconds.append(now - due)
        websocket.send(messages.chunks[record.sent_chunks % len(messages.chunks)])
        record.sent_chunks += 1
        if websocket.unsent_bytes > UNSENT_LIMIT_BYTES:
            self._fail("the server stopped reading")
        elif record.sent_chunks >= self._chunks:
            self._finishing_at = now
            websocket.send(messages.finish)
            self._timer = asyncio.get_running_loop().call_later(END_TIMEOUT_SECONDS, self._fail, "no end")
        else:
            if record.sent_chunks in messages.flush_points:
                self._flushes.append(now)
                websocket.send(messages.flush)
            self._schedule_chunk()

    def _fail(self, error: str, detail: str = "") -> None:
        self.record.error, self.record.detail = error, detail or self.record.detail
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._ended.done():
            self._ended.set_result(None)

    # --- MessageHandler ----------------------------------------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        try:
            self._read(message)
        except msgspec.MsgspecError as error:
            self._fail("a message that the protocol does not know", str(error))

    def on_close(self, code: int) -> None:
        record = self.record
        if self._finishing_at is not None and code == 1000:
            record.finished = True
            if record.finish_seconds is None:
                record.finish_seconds = time.monotonic() - self._finishing_at
        elif record.error is None:
            record.error = f"closed with {code}"
        self._end()

    # --- Listener ----------------------------------------------------------------------------------------------------

    def on_word(self, text: str) -> None:
        self.record.arrivals.append(time.monotonic())
        self.record.texts.append(sys.intern(text))

    def on_flushed(self) -> None:
        now = time.monotonic()
        if self._flushes:
            sent = self._flushes.popleft()
            self.record.flushes.append((sent, now - sent))
        elif self._finishing_at is not None and self._messages.dialect.finish is None and self._websocket is not None:
            self.record.finish_seconds = now - self._finishing_at
            self._websocket.close()

    def on_lag(self, seconds: float) -> None:
        self.record.lags.append((time.monotonic(), seconds))

    def on_error(self, message: str) -> None:
        self.record.detail = message

    def reply(self, message: Message) -> None:
        assert self._websocket is not None
        self._websocket.send(frame(message))

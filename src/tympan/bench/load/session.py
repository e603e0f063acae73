"""One session of a load: audio up at the pace of a microphone, arrivals noted.

Chunk `n` is due at the moment at which a microphone that was switched on at `began` has all of it. Due moments are
computed from `began`, so a chunk that goes out late does not make the next one late, and what arrives is measured
against them: a client that is late itself does not hide what its user waits for.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from tympan.bench.load.dialects import Dialect
from tympan.bench.load.plan import Plan
from tympan.bench.load.readers import Message
from tympan.bench.load.socket import NotOpenError, Socket, frame, open_socket
from tympan.bench.load.speech import Speech

END_TIMEOUT_SECONDS = 30.0
"""How long the last words may take."""

UNSENT_LIMIT_BYTES = 4 * 2**20
"""A server that has left this much unread is counted as one that has stopped."""


class Script:
    """What all sessions send, framed: the audio's chunks, over and over, and flushes after some of them."""

    def __init__(self, plan: Plan, speech: Speech) -> None:
        dialect = plan.dialect
        self.dialect: Dialect = dialect
        self.url = plan.address
        self.headers: Mapping[str, str] = (
            {"Authorization": f"Bearer {plan.token}", "kyutai-api-key": plan.token} if plan.token else {}
        )
        self.chunk_seconds = plan.chunk_seconds
        self.chunks = [frame(dialect.audio(chunk)) for chunk in speech.chunks]
        self.hello = [frame(message) for message in dialect.hello]
        self.flush = frame(dialect.flush)
        self.finish = self.flush if dialect.finish is None else frame(dialect.finish)
        self.flush_points = speech.flush_points(plan.flush_every, plan.session_chunks)


@dataclass
class Record:
    """What happened in one session. Moments are of `time.monotonic`."""

    dialled: float
    handshake_seconds: float | None = None
    began: float = 0.0
    sent_chunks: int = 0
    finished: bool = False
    """Whether all of its audio was sent and every word told."""
    error: str | None = None
    detail: str = ""
    texts: list[str] = field(default_factory=list)
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    flushes: list[tuple[float, float]] = field(default_factory=list)
    """When it was sent, and seconds until the answer."""
    finish_seconds: float | None = None
    lags: list[tuple[float, float]] = field(default_factory=list)
    late_seconds: array[float] = field(default_factory=lambda: array("f"))
    """Of each chunk, how long after it was due it went out: the load tool's own delay."""


class Session:
    """`run` opens it, lives it and returns what happened."""

    def __init__(self, script: Script, chunks: int) -> None:
        self._script = script
        self._chunks = chunks
        self._read: Callable[[bytes], None] = script.dialect.reader(self)
        self._flushes: deque[float] = deque()
        self._finishing_at: float | None = None
        self._socket: Socket | None = None
        self._timer: asyncio.Handle | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.record = Record(time.monotonic())

    async def run(self) -> Record:
        record, script = self.record, self._script
        try:
            self._socket = await open_socket(script.url, script.headers, self)
        except NotOpenError as error:
            record.error = str(error)
            return record
        record.began = time.monotonic()
        record.handshake_seconds = record.began - record.dialled
        for hello in script.hello:
            self._socket.send(hello)
        self._wait_for_next()
        try:
            await self._over
        finally:
            self._stop_timer()
            self._socket.abort()
        return record

    def _wait_for_next(self) -> None:
        due = self.record.began + (self.record.sent_chunks + 1) * self._script.chunk_seconds
        self._timer = asyncio.get_running_loop().call_at(due, self._send_chunk, due)

    def _send_chunk(self, due: float) -> None:
        socket, record, script = self._socket, self.record, self._script
        assert socket is not None
        now = time.monotonic()
        record.late_seconds.append(now - due)
        socket.send(script.chunks[record.sent_chunks % len(script.chunks)])
        record.sent_chunks += 1
        if socket.unsent_bytes > UNSENT_LIMIT_BYTES:
            self._break("the server stopped reading")
        elif record.sent_chunks >= self._chunks:
            self._finishing_at = now
            socket.send(script.finish)
            self._timer = asyncio.get_running_loop().call_later(END_TIMEOUT_SECONDS, self._break, "no end")
        else:
            if record.sent_chunks in script.flush_points:
                self._flushes.append(now)
                socket.send(script.flush)
            self._wait_for_next()

    # --- What the socket says ----------------------------------------------------------------------------------------

    def heard(self, message: bytes) -> None:
        try:
            self._read(message)
        except msgspec.MsgspecError as error:
            self._break("a message that the protocol does not know", str(error))

    def ended(self, code: int) -> None:
        self._stop_timer()
        record = self.record
        if self._finishing_at is not None and code == 1000:
            record.finished = True
            if record.finish_seconds is None:
                record.finish_seconds = time.monotonic() - self._finishing_at
        elif record.error is None:
            record.error = f"closed with {code}"
        if not self._over.done():
            self._over.set_result(None)

    # --- What the dialect hears (`Ear`) ------------------------------------------------------------------------------

    def word(self, text: str) -> None:
        record = self.record
        record.arrivals.append(time.monotonic())
        record.texts.append(sys.intern(text))

    def flushed(self) -> None:
        now = time.monotonic()
        if self._flushes:
            sent = self._flushes.popleft()
            self.record.flushes.append((sent, now - sent))
        elif self._finishing_at is not None and self._script.dialect.finish is None and self._socket is not None:
            self.record.finish_seconds = now - self._finishing_at
            self._socket.close()

    def behind(self, seconds: float) -> None:
        self.record.lags.append((time.monotonic(), seconds))

    def failed(self, message: str) -> None:
        self.record.detail = message

    def reply(self, message: Message) -> None:
        assert self._socket is not None
        self._socket.send(frame(message))

    def _break(self, error: str, detail: str = "") -> None:
        self.record.error, self.record.detail = error, detail or self.record.detail
        self._stop_timer()
        if not self._over.done():
            self._over.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""Files in the body of a request: an ordinary session, fed as fast as the engine takes it.

Nothing is kept: the body is decoded as it is read, and it is read only as far as the engine is. To the engine a file is
backlog, which runs in what room live streams leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from tympan.config import LimitSettings
from tympan.errors import AudioError, IdleError, SessionTooLongError, TooBigError
from tympan.messages import Audio, AudioFormat, Event, Finish
from tympan.server.service import Service
from tympan.session.session import Session

CHUNK_BYTES = 64 * 1024


class Upload:
    """Made with its slots taken: raises `CapacityError` and `EngineError`. Iterate `events` once."""

    def __init__(self, service: Service, id: str, audio_format: AudioFormat, protocol: str) -> None:
        self._service = service
        self._protocol = protocol
        self._events: asyncio.Queue[tuple[Event, int] | Exception | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._opened_at = asyncio.get_running_loop().time()
        self._session = Session(
            id, service.engine, audio_format, service.config, self._on_event, self._room.set, self._on_end
        )

    async def events(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[Event, int]]:
        """Every event with its channel; the last one is `Complete`. Raises what ended the session early."""
        self._service.enter(self)
        feeder = asyncio.create_task(self._feed(chunks))
        outcome = "cancelled"
        try:
            while isinstance(item := await self._events.get(), tuple):
                yield item
            outcome = "failed" if item is not None else "ok"
            if item is not None:
                raise item
        finally:
            feeder.cancel()
            self._session.close()
            self._service.leave(self)
            self._account(outcome)

    def check_limits(self, now: float) -> None:
        """A file is limited by its size, but a small one may hold days of audio."""
        longest = self._service.config.limits.session_seconds
        if now - self._opened_at > longest:
            self._on_end(SessionTooLongError(f"the file was not done after {longest:g} s; send it in parts"))

    def restart(self) -> None:
        self._session.restart()

    async def _feed(self, chunks: AsyncIterable[bytes]) -> None:
        try:
            empty = True
            async for chunk in chunks:
                empty = empty and not chunk
                self._room.clear()
                if not self._session.execute(Audio(chunk)):
                    await self._room.wait()
            if empty:
                raise AudioError("the file is empty")
            self._session.execute(Finish())
        except Exception as error:
            self._on_end(error)

    def _on_event(self, event: Event, channel: int) -> None:
        self._events.put_nowait((event, channel))

    def _on_end(self, error: Exception | None) -> None:
        self._events.put_nowait(error)

    def _account(self, outcome: str) -> None:
        metrics = self._service.metrics
        metrics.sessions.labels(protocol=self._protocol, code=outcome).inc()
        metrics.audio_seconds.inc(self._session.received_seconds)
        metrics.words.inc(self._session.words)
        metrics.connection_ended(self._session.received_seconds)


def limited(request: Request, limits: LimitSettings, most_bytes: int) -> Request:
    """The request, but reading its body raises `TooBigError` past so many bytes, `IdleError` where it stands still."""
    return Request(request.scope, _limited(request.receive, limits, most_bytes))


def _limited(receive: Receive, limits: LimitSettings, most_bytes: int) -> Receive:
    read = 0
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.session_seconds

    async def counted() -> Message:
        nonlocal read
        try:
            async with asyncio.timeout_at(min(loop.time() + limits.idle_seconds, deadline)):
                message = await receive()
        except TimeoutError:
            raise IdleError("the body of the request did not come in time") from None
        read += len(message.get("body", b""))
        if read > most_bytes:
            raise TooBigError(f"the upload is larger than the limit of {most_bytes >> 20} MiB")
        return message

    return counted


async def chunks_of(file: UploadFile, request: Request) -> AsyncIterator[bytes]:
    """A file that has arrived, for as long as somebody waits for what is in it."""
    while chunk := await file.read(CHUNK_BYTES):
        if await request.is_disconnected():
            raise ClientDisconnect
        yield chunk

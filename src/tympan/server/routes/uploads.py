"""Files in the body of a request: an ordinary session, fed as fast as the engine takes it.

Nothing is kept: the body is decoded as it is read, and it is read only as far as the engine is. To the engine a file is
backlog, which runs in what room live streams leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import suppress

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from tympan.config import LimitSettings
from tympan.errors import AudioError, IdleError, SessionTooLongError, TooBigError
from tympan.messages import Audio, AudioFormat, Event, Finish
from tympan.protocols.base import Request as Opening
from tympan.server.access.quota import Account
from tympan.server.service import Service
from tympan.server.sessions.session_log import SessionLog

CHUNK_BYTES = 64 * 1024
LOOK_EVERY_SECONDS = 0.5  # for whether the client is still there


class Upload:
    """Made with its slots taken: raises `QuotaError`, `CapacityError` and `EngineError`. Iterate `events` once."""

    def __init__(
        self, service: Service, account: Account, opening: Opening, audio_format: AudioFormat, protocol: str
    ) -> None:
        self._service = service
        self._log = SessionLog(service, opening, protocol)
        self._events: asyncio.Queue[tuple[Event, int] | Exception | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._opened_at = asyncio.get_running_loop().time()
        self._streams = audio_format.streams
        service.check_upload_room(self._streams)
        self._session = self._log.open(
            account, audio_format, self._on_event, self._room.set, self._on_end, wants_vad=False, live=False
        )
        service.upload_streams += self._streams

    @property
    def channels(self) -> int:
        """How many the file has; or might have, before its first event."""
        return self._session.channels

    async def events(self, chunks: AsyncIterable[bytes], body: Body) -> AsyncGenerator[tuple[Event, int]]:
        """Every event with its channel; the last one is `Complete`. Raises what ended the session early.

        `chunks` is what the body, or a part of it, holds.
        """
        self._service.enter(self)
        feeder = asyncio.create_task(self._feed(chunks, body))
        outcome = "cancelled"
        try:
            while isinstance(item := await self._events.get(), tuple):
                yield item
            if isinstance(item, ClientDisconnect):
                raise item
            outcome = "failed" if item is not None else "ok"
            if item is not None:
                self._log.failed(item)
                raise item
        finally:
            feeder.cancel()
            self._session.close()
            self._service.leave(self)
            self._service.upload_streams -= self._streams
            self._log.closed(outcome)

    def check_limits(self, now: float) -> None:
        """A file is limited by its size, but a small one may hold days of audio."""
        spent = self._log.spent()
        if spent is not None:
            self._on_end(spent)
        longest = self._service.config.limits.session_seconds
        if now - self._opened_at > longest:
            self._on_end(SessionTooLongError(f"the file was not done after {longest:g} s; send it in parts"))

    def restart(self) -> None:
        self._session.restart()

    async def _feed(self, chunks: AsyncIterable[bytes], body: Body) -> None:
        try:
            empty = True
            async for chunk in chunks:
                empty = empty and not chunk
                self._room.clear()
                if not self._session.execute(Audio(chunk)):
                    await self._wait_for_room(body)
            if empty:
                raise AudioError("the file is empty")
            self._room.clear()
            if not self._session.execute(Finish()):
                await self._wait_for_room(body)
        except Exception as error:
            self._on_end(error)

    async def _wait_for_room(self, body: Body) -> None:
        """A few bytes may be hours of audio. Raises `ClientDisconnect` when nobody waits for what is in them."""
        while not self._room.is_set():
            if not await body.is_wanted():
                raise ClientDisconnect
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), LOOK_EVERY_SECONDS)

    def _on_event(self, event: Event, channel: int) -> None:
        self._events.put_nowait((event, channel))

    def _on_end(self, error: Exception | None) -> None:
        self._events.put_nowait(error)


class Body:
    """A request's body as far as anybody wants it, and whether somebody still waits for the answer."""

    def __init__(
        self, request: Request, limits: LimitSettings, most_bytes: int, account: Account | None = None
    ) -> None:
        self._account = account
        self._receive = request.receive
        self._idle_seconds = limits.idle_seconds
        self._deadline = asyncio.get_running_loop().time() + limits.session_seconds
        self._most_bytes = most_bytes
        self._read = 0
        self._next: Message | None = None
        self.request = Request(request.scope, self._limited)
        """The request. Reading its body raises `TooBigError` past the limit, `IdleError` where it stands still, and
        `QuotaError` where the account, if it is a file's, has no more.
        """

    async def is_wanted(self) -> bool:
        if self._next is None:
            receiving = asyncio.ensure_future(self._receive())
            await asyncio.sleep(0)
            if not receiving.done():
                receiving.cancel()
            with suppress(asyncio.CancelledError):
                self._next = await receiving
        return self._next is None or self._next["type"] != "http.disconnect"

    async def _limited(self) -> Message:
        message, self._next = self._next, None
        now = asyncio.get_running_loop().time()
        if message is None:
            try:
                async with asyncio.timeout_at(min(now + self._idle_seconds, self._deadline)):
                    message = await self._receive()
            except TimeoutError:
                raise IdleError("the body of the request did not come in time") from None
        size = len(message.get("body", b""))
        if self._account is not None:
            self._account.upload(size, now)
        self._read += size
        if self._read > self._most_bytes:
            raise TooBigError(f"the upload is larger than the limit of {self._most_bytes >> 20} MiB")
        return message


async def chunks_of(file: UploadFile) -> AsyncIterator[bytes]:
    """A file that has arrived."""
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk

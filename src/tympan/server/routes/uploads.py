"""Files in the body of a request: a session that is fed as fast as the engine transcribes.

The body is decoded while it is read, and read only as far as the engine has room, so no file is kept. The engine
transcribes files with the capacity that live streams leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import suppress

from starlette.requests import ClientDisconnect

from tympan.errors import AudioError, SessionTooLongError
from tympan.messages import Audio, AudioFormat, Event, Finish
from tympan.protocols.base import Request
from tympan.server.access.quota import Account
from tympan.server.routes.body import Body
from tympan.server.service import Service
from tympan.server.sessions.session_log import SessionLog

CHECK_EVERY_SECONDS = 0.5  # whether the client is still connected


class Upload:
    """The session of one file; its slots are taken. Iterate over `events` once, or call `close`.

    Attributes:
        unsupported: What the client requested and the model cannot do, for the log.

    Raises:
        QuotaError: The key has reached one of its limits.
        CapacityError: Too few slots are free for files.
        EngineError: The engine is not running.
    """

    def __init__(
        self, service: Service, account: Account, request: Request, audio_format: AudioFormat, protocol: str
    ) -> None:
        self._service = service
        self._streams = audio_format.streams
        self._log = SessionLog(service, request, protocol)
        self._events: asyncio.Queue[tuple[Event, int] | Exception | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._outcome = "cancelled"
        self.unsupported: Sequence[str] = ()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._session, self._usage = service.admission.open_session(
            account, request.id, audio_format, self, wants_vad=bool(service.observers), live=False
        )
        observers = service.observers.begin(request, protocol, audio_format, service.engine.info)
        self._session.observers += observers
        self._log.opened(self._session, observers)

    @property
    def channels(self) -> int:
        """Channels of the file; before the first event, the most that it may have."""
        return self._session.channels

    async def events(self, chunks: AsyncIterable[bytes], body: Body) -> AsyncGenerator[tuple[Event, int]]:
        """Yield every event with its channel; the last one is `Complete`.

        Args:
            chunks: The bytes of the file.
            body: The body of the request that contains the file.

        Raises:
            ClientDisconnect: The client no longer waits for the response.
            TympanError: The error that ended the session.
        """
        self._service.connections.add(self)
        feeder = asyncio.create_task(self._feed(chunks, body))
        try:
            while isinstance(item := await self._events.get(), tuple):
                yield item
            if isinstance(item, ClientDisconnect):
                raise item
            self._outcome = "failed" if item is not None else "ok"
            if item is not None:
                self._log.failed(item)
                raise item
        finally:
            feeder.cancel()
            self.close()

    def close(self) -> None:
        """Release the slots. May be called at any time and more than once."""
        if self._closed:
            return
        self._closed = True
        self._session.close()
        self._service.connections.remove(self)
        self._service.admission.end_upload(self._streams)
        self._usage.end(self._loop.time())
        self._log.closed(self._outcome, unsupported=self.unsupported)

    def check_limits(self, now: float) -> None:
        """End the session if it is over a limit: a small file may contain days of audio."""
        error = self._usage.spent(self._loop.time())
        if error is not None:
            self.on_end(error)
        longest = self._service.config.limits.session_seconds
        if now - self._opened_at > longest:
            self.on_end(SessionTooLongError(f"the file was not transcribed within {longest:g} s; send it in parts"))

    def restart(self) -> None:
        """Transcribe what was received and end: the server is shutting down."""
        self._session.restart()

    def on_event(self, event: Event, channel: int) -> None:
        """Queue an event for the iterator."""
        self._events.put_nowait((event, channel))

    def on_room(self) -> None:
        """Continue to read the body."""
        self._room.set()

    def on_end(self, error: Exception | None) -> None:
        """Queue the end for the iterator."""
        self._events.put_nowait(error)

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
            self.on_end(error)

    async def _wait_for_room(self, body: Body) -> None:
        """Wait until the session accepts more: a few bytes may be hours of audio.

        Raises:
            ClientDisconnect: The client no longer waits for the response.
        """
        while not self._room.is_set():
            if not await body.is_connected():
                raise ClientDisconnect
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), CHECK_EVERY_SECONDS)

"""One WebSocket connection: reads messages into the session, writes what comes back, ends with the right code.

Two tasks run per connection, a reader and a writer with the outbox between them; when either is done, so is the
connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from tympan.errors import (
    FrameError,
    IdleError,
    RestartingError,
    SessionTooLongError,
    SlowReaderError,
    TooBigError,
    TympanError,
)
from tympan.messages import Event, Flush, Lag
from tympan.protocols.base import Farewell, Offer, Passing, Refusal, Request, ServerProtocol, WireMessage
from tympan.server.service import Service
from tympan.session.outbox import Outbox
from tympan.session.session import Session

logger = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 10.0  # for a client to take its last words before the socket is cut


MakeProtocol = Callable[[Request, Offer], ServerProtocol]


async def serve(websocket: WebSocket, service: Service, make_protocol: MakeProtocol) -> None:
    """Handle one opening request to the end of its connection."""
    request = request_of(websocket)
    protocol = make_protocol(request, service.offer)
    connection = Connection(websocket, service, protocol, request.id)
    try:
        service.admit(protocol.credential())
        connection.open()
    except TympanError as error:
        service.refused(error)
        logger.info("refused %s: %s", websocket.url.path, error)
        refusal = protocol.refuse(error)
        if isinstance(refusal, Refusal):
            await websocket.send_denial_response(Response(refusal.body, refusal.status, dict(refusal.headers)))
            return
        connection.say_farewell(refusal)
    await connection.run()


def request_of(connection: HTTPConnection) -> Request:
    """An opening request in the protocols' own terms."""
    return Request(
        path=connection.url.path,
        query=dict(connection.query_params),
        headers=dict(connection.headers),
        id=str(uuid.uuid4()),
        opened_at=time.time(),
    )


class Connection:
    """`open`, then `run`. `fail` may be called at any time, from anywhere on the loop."""

    def __init__(self, websocket: WebSocket, service: Service, protocol: ServerProtocol, id: str) -> None:
        self._id = id
        self._websocket = websocket
        self._service = service
        self._protocol = protocol
        self._limits = service.config.limits
        self._outbox = Outbox(self._limits.outbox_messages)
        self._session: Session | None = None
        self._farewell: Farewell | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened_at = asyncio.get_running_loop().time()
        self._handover: asyncio.Future[None] | None = None
        self._waiting_since: float | None = None  # for the client's next message; None while we are at one
        self._ended_at = 0.0

    def open(self) -> None:
        """Take the slots. Raises `ParameterError`, `CapacityError` or `EngineError`."""
        audio_format = self._protocol.start()
        service = self._service
        self._session = Session(self._id, service.engine, audio_format, service.config, self._on_event, self._end)

    async def run(self) -> None:
        """Serve the client until either side ends it."""
        self._task = asyncio.current_task()
        self._service.enter(self)
        try:
            acceptance = self._protocol.accept()
            headers = [(name.encode(), value.encode()) for name, value in acceptance.headers.items()]
            await self._websocket.accept(acceptance.subprotocol, headers)
            self._service.metrics.connected()
            if self._session is not None:
                logger.info("%s opened from %s", self._session.id, self._websocket.url.path)
                self._session.start()
            await self._exchange()
        except asyncio.CancelledError:
            if self._farewell is None:  # the server itself is being stopped
                raise
        finally:
            self._service.leave(self)
            self._account()

    async def _exchange(self) -> None:
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self) -> None:
        """Ends when the client is gone. After the farewell it goes on reading, so that the client's close is heard."""
        try:
            while (message := await self._receive()) is not None:
                if self._farewell is None and self._session is not None:
                    await self._obey(message, self._session)
        except TympanError as error:
            self.fail(error)
            while await self._receive() is not None:
                pass
        except Exception as error:
            logger.exception("internal error")
            self.fail(error)
            await asyncio.Event().wait()  # the writer ends the connection

    async def _obey(self, message: WireMessage, session: Session) -> None:
        size = len(message)
        if size > self._limits.message_bytes:
            raise TooBigError(f"a message of {size} bytes is too big; the limit is {self._limits.message_bytes} bytes")
        for action in self._protocol.receive(message):
            if isinstance(action, str | bytes):
                self._outbox.put((action,))
            else:
                await session.execute(action)

    async def _receive(self) -> WireMessage | None:
        self._waiting_since = asyncio.get_running_loop().time()
        message = await self._websocket.receive()
        self._waiting_since = None
        if message["type"] == "websocket.disconnect":
            return None
        data: WireMessage | None = message.get("bytes")
        if data is None:
            data = message.get("text")
        if data is None:
            raise FrameError("a message without content")
        return data

    async def _write(self) -> None:
        """Ends when the last words are out, or the client is gone."""
        try:
            while (message := await self._outbox.get()) is not None:
                await self._websocket.send(
                    {"type": "websocket.send", "text": message}
                    if isinstance(message, str)
                    else {"type": "websocket.send", "bytes": message}
                )
            assert self._farewell is not None
            await self._websocket.close(self._farewell.code, self._farewell.close_reason)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("the client is gone: %r", error)

    def _on_event(self, event: Event, channel: int) -> None:
        if isinstance(event, Lag):
            self._service.metrics.lag.observe(event.behind)
        try:
            for answer in self._protocol.send(event, channel):
                match answer:
                    case Flush():
                        assert self._session is not None
                        self._session.flush(answer.mark)
                    case Passing():
                        self._outbox.put((answer.message,), droppable=True)
                    case _:
                        self._outbox.put((answer,))
        except SlowReaderError as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the connection with the last words and the close code for this error."""
        if self._session is not None:
            self._session.close()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._farewell is not None:
            return
        if error is not None and not isinstance(error, TympanError):
            logger.error("a session failed: %r", error)  # whoever broke has logged the trace
        self.say_farewell(self._protocol.fail(error))

    def say_farewell(self, farewell: Farewell) -> None:
        """The last words, whatever led to them."""
        self._farewell = farewell
        self._ended_at = asyncio.get_running_loop().time()
        self._outbox.close(farewell.messages)

    def check_limits(self, now: float) -> None:
        if self._farewell is not None:
            if now - self._ended_at > LAST_WORDS_SECONDS and self._task is not None:
                self._task.cancel()
        elif self._limits.handover_seconds is not None and now - self._opened_at > self._limits.handover_seconds:
            self._handover = self._handover or asyncio.ensure_future(self.restart())
        elif now - self._opened_at > self._limits.session_seconds:
            self.fail(SessionTooLongError(f"the session reached its limit of {self._limits.session_seconds:g} s"))
        elif self._waiting_since is not None and now - self._waiting_since > self._limits.idle_seconds:
            self.fail(IdleError(f"no message came for {self._limits.idle_seconds:g} s"))

    async def restart(self) -> None:
        if self._session is not None and self._farewell is None:
            await self._session.restart()
        else:
            self._end(RestartingError("the server is restarting"))

    def _account(self) -> None:
        code = self._farewell.code if self._farewell is not None else 1006
        metrics = self._service.metrics
        metrics.sessions.labels(protocol=self._protocol.name, code=str(code)).inc()
        metrics.dropped.inc(self._outbox.dropped)
        if self._session is None:
            return
        self._session.close()
        seconds, words = self._session.received_seconds, self._session.words
        metrics.audio_seconds.inc(seconds)
        metrics.words.inc(words)
        metrics.connection_ended(seconds)
        logger.info("%s closed with %d: %.1f s of audio, %d words", self._session.id, code, seconds, words)

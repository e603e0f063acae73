"""One client: its messages into the session, what comes back out to it, and the right end.

A connection waits for nothing and owns no task: its wire tells it what came and when there is room, and the service
looks in on it once a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from tympan.errors import (
    IdleError,
    RestartingError,
    SessionTooLongError,
    SlowReaderError,
    TooBigError,
    TympanError,
)
from tympan.messages import Event, Flush, Lag
from tympan.protocols.base import Acceptance, Farewell, Offer, Passing, Refusal, Request, ServerProtocol, WireMessage
from tympan.server.service import Service
from tympan.session.outbox import Outbox
from tympan.session.session import Session

logger = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 10.0  # for a client to take its last words before the socket is cut

MakeProtocol = Callable[[Request, Offer], ServerProtocol]


class Wire(Protocol):
    """A WebSocket, as a connection sees it. None of these block."""

    writable: bool
    """Whether `send` is welcome; `Connection.on_writable` tells when it is again."""

    def send(self, message: WireMessage) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """After what was sent."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        """Cut it now. `Connection.on_gone` follows, as it does whenever the client is gone."""


def opening_request(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Request:
    """An opening request in the protocols' own terms; header names in lower case."""
    return Request(path=path, query=query, headers=headers, id=str(uuid.uuid4()), opened_at=time.time())


class Connection:
    """`open`, then `start` once the upgrade is answered. The rest is called by the wire, all on the event loop."""

    def __init__(self, wire: Wire, service: Service, protocol: ServerProtocol, request: Request) -> None:
        self._wire = wire
        self._service = service
        self._protocol = protocol
        self._request = request
        self._limits = service.config.limits
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._limits.outbox_messages)
        self._session: Session | None = None
        self._farewell: Farewell | None = None
        self._started = False
        self._left = False
        self._held = False
        self._opened_at = self._heard_at = self._loop.time()
        self._heard = False  # since the last look; asking for the time at every message costs more
        self._ended_at = 0.0

    def open(self) -> Acceptance | Refusal:
        """Take the slots, and say how to answer the upgrade."""
        service = self._service
        try:
            service.admit(self._protocol.credential(), self._request.headers)
            audio_format = self._protocol.start()
            self._session = Session(
                self._request.id, service.engine, audio_format, service.config, self._on_event, self._on_room, self._end
            )
        except TympanError as error:
            service.refused(error)
            logger.info("refused %s: %s", self._request.path, error)
            refusal = self._protocol.refuse(error)
            if isinstance(refusal, Refusal):
                return refusal
            self._say_farewell(refusal)
        service.enter(self)
        return self._protocol.accept()

    def start(self) -> None:
        """The upgrade is answered: messages may go both ways."""
        self._started = True
        self._service.metrics.connected()
        if self._session is not None:
            logger.info("%s opened from %s", self._session.id, self._request.path)
            self._session.start()
        self._send_what_waits()

    def on_message(self, message: WireMessage) -> None:
        """A whole message came. After the farewell there is nobody to hear it."""
        self._heard = True
        if self._farewell is not None or self._session is None:
            return
        try:
            if len(message) > self._limits.message_bytes:
                raise _too_big(len(message), self._limits.message_bytes)
            for action in self._protocol.receive(message):
                if isinstance(action, str | bytes):
                    self._say(action)
                elif not self._session.execute(action):
                    self._hold()
        except TympanError as error:
            self.fail(error)
        except Exception as error:
            logger.exception("internal error")
            self.fail(error)

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._wire.pause_reading()

    def _on_room(self) -> None:
        if self._held:
            self._held = False
            self._heard = True
            self._wire.resume_reading()

    def on_writable(self) -> None:
        self._send_what_waits()

    def on_gone(self) -> None:
        """The socket is closed. May be called more than once."""
        self._leave()

    def _on_event(self, event: Event, channel: int) -> None:
        if isinstance(event, Lag):
            self._service.metrics.lag.observe(event.behind)
        for answer in self._protocol.send(event, channel):
            match answer:
                case Flush():
                    assert self._session is not None
                    self._session.flush(answer.mark)
                case Passing():
                    self._say(answer.message, droppable=True)
                case _:
                    self._say(answer)

    def _say(self, message: WireMessage, droppable: bool = False) -> None:
        try:
            self._outbox.put(message, droppable)
        except SlowReaderError as error:
            self.fail(error)
        self._send_what_waits()

    def _send_what_waits(self) -> None:
        if not self._started or self._left:
            return
        while self._wire.writable and (message := self._outbox.take()) is not None:
            self._wire.send(message)
        if self._farewell is not None and self._wire.writable:
            self._wire.close(self._farewell.code, self._farewell.close_reason)
            self._leave()

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
        self._say_farewell(self._protocol.fail(error))

    def _say_farewell(self, farewell: Farewell) -> None:
        """The last words, whatever led to them. Reading goes on, so that the client's close is heard."""
        self._farewell = farewell
        self._ended_at = self._loop.time()
        self._outbox.put_last(farewell.messages)
        self._on_room()
        self._send_what_waits()

    def check_limits(self, now: float) -> None:
        limits = self._limits
        if self._heard or self._held:
            self._heard, self._heard_at = False, now
        if self._farewell is not None:
            if now - self._ended_at > LAST_WORDS_SECONDS:
                self._wire.abort()
        elif limits.handover_seconds is not None and now - self._opened_at > limits.handover_seconds:
            self.restart()
        elif now - self._opened_at > limits.session_seconds:
            self.fail(SessionTooLongError(f"the session reached its limit of {limits.session_seconds:g} s"))
        elif now - self._heard_at > limits.idle_seconds:
            self.fail(IdleError(f"no message came for {limits.idle_seconds:g} s"))

    def restart(self) -> None:
        if self._session is not None and self._farewell is None:
            self._session.restart()
        else:
            self._end(RestartingError("the server is restarting"))

    def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self._service.leave(self)
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


def _too_big(size: int, most: int) -> TooBigError:
    return TooBigError(f"a message of {size} bytes is too big; the limit is {most} bytes")

"""One client: its messages into the session, what comes back out to it, and the right end.

A connection waits for nothing and owns no task: its wire tells it what came and when there is room, and the service
looks in on it once a second. Where the protocol allows, it outlives its wire: the session goes on, what it says waits,
and a client that comes back in time with the stream's token takes it over with a new wire (`resume.py`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from tympan.errors import IdleError, RestartingError, SessionTooLongError, SlowReaderError, TooBigError, TympanError
from tympan.messages import Event, Flush, Lag
from tympan.protocols.base import (
    Acceptance,
    CloseInfo,
    Droppable,
    Refusal,
    Request,
    ResumableProtocol,
    ServerInfo,
    ServerProtocol,
    WireMessage,
)
from tympan.server.service import Service
from tympan.server.sessions.outbox import Outbox, ResumableOutbox
from tympan.server.sessions.session_log import SessionLog
from tympan.server.sessions.transport import NO_CODE, NO_GOODBYE, Transport
from tympan.session.session import Session

LAST_WORDS_SECONDS = 10.0  # for a client to take its last words before the socket is cut

GOODBYES = frozenset({1000, 1001, NO_CODE})  # other codes tell of a failure on the way, after which a client comes back

_MESSAGES = (str, bytes)  # a union of types would be made anew for every message

MakeProtocol = Callable[[Request, ServerInfo], ServerProtocol]


class Connection:
    """`open`, then `start` once the upgrade is answered. The rest is called by the wire, all on the event loop."""

    def __init__(self, transport: Transport, service: Service, protocol: ServerProtocol, request: Request) -> None:
        self._transport: Transport | None = transport
        self._service = service
        self._protocol = protocol
        self._request = request
        self._log = SessionLog(service, request, protocol.name)
        self._limits = service.config.limits
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._limits.outbox_messages)
        self._token = ""
        self._session: Session | None = None
        self._close_info: CloseInfo | None = None
        self._started = False
        self._returned = False
        self._closed = False
        self._left = False
        self._held = False
        self._opened_at = self._heard_at = self._loop.time()
        self._heard = False  # since the last look; asking for the time at every message costs more
        self._ended_at = self._lost_at = 0.0

    @property
    def credential(self) -> str | None:
        return self._protocol.credential()

    def open(self) -> Acceptance | Refusal:
        """Take the slots, and say how to answer the upgrade."""
        service = self._service
        try:
            account = service.admit(self.credential, self._request.headers)
            audio_format = self._protocol.start()
            self._session = self._log.open(
                account,
                audio_format,
                self._on_event,
                self._on_room,
                self._end,
                wants_vad=self._protocol.wants_vad,
            )
        except TympanError as error:
            return self.refuse(error)
        self._prepare_return()
        service.enter(self)
        return self._protocol.accept()

    def refuse(self, error: TympanError) -> Acceptance | Refusal:
        """Say how to answer the upgrade of a client that is not let in."""
        self._log.refused(error)
        refusal = self._protocol.refuse(error)
        if isinstance(refusal, Refusal):
            return refusal
        self._send_close(refusal)
        self._service.enter(self)
        return self._protocol.accept()

    def _prepare_return(self) -> None:
        protocol, limits = self._protocol, self._limits
        if isinstance(protocol, ResumableProtocol) and protocol.wants_token() and limits.resume_seconds > 0:
            self._token = secrets.token_urlsafe()
            protocol.give_token(self._token)
            self._outbox = ResumableOutbox(limits.outbox_messages)
            self._service.resumable[self._token] = self

    def take_over(self, transport: Transport, received: int) -> None:
        """Go on with another wire, after the first `received` messages, which the client has got; `start` follows.

        The old wire may look alive: a client knows of a lost connection long before its server. Raises `ResumeError`.
        """
        assert isinstance(self._outbox, ResumableOutbox)
        self._outbox.rewind(received)
        if self._transport is not None:
            self._transport.abandon()
        self._transport = transport
        self._started = self._closed = False
        self._returned = True
        self._ended_at = self._loop.time()

    def start(self) -> None:
        """The upgrade is answered: messages may go both ways."""
        self._started = self._heard = True
        if self._returned:
            self._greet_again()
        else:
            self._service.metrics.connected()
            if self._session is not None:
                self._session.start()
        self._send_what_waits()

    def _greet_again(self) -> None:
        assert self._transport is not None
        assert isinstance(self._protocol, ResumableProtocol)
        self._log.resumed()
        self._transport.send(self._protocol.resumed())
        if self._held:
            self._transport.pause_reading()

    def on_message(self, message: WireMessage) -> None:
        """A whole message came. After the farewell there is nobody to hear it."""
        self._heard = True
        session = self._session
        if self._close_info is not None or session is None:
            return
        try:
            if (size := len(message)) > (most := self._limits.message_bytes):
                raise TooBigError(f"a message of {size} bytes is too big; the limit is {most} bytes")
            for action in self._protocol.receive(message):
                if isinstance(action, _MESSAGES):
                    self._say(action)
                elif not session.execute(action):
                    self._hold()
        except TympanError as error:
            self.fail(error)
        except Exception as error:
            self._log.broke()
            self.fail(error)

    def _hold(self) -> None:
        assert self._transport is not None
        if not self._held:
            self._held = True
            self._transport.pause_reading()

    def _on_room(self) -> None:
        if self._held:
            self._held = False
            self._heard = True
            if self._transport is not None:
                self._transport.resume_reading()

    def on_writable(self) -> None:
        self._send_what_waits()

    def on_gone(self, code: int = NO_GOODBYE) -> None:
        """The wire is closed, by the client with this code. May be called more than once."""
        goodbye = code in GOODBYES if self._close_info is None else code != NO_GOODBYE
        if goodbye or not self._token or self._service.draining:
            self._leave()
        elif self._transport is not None:
            self._log.lost()
            self._transport = None
            self._lost_at = self._loop.time()

    def _on_event(self, event: Event, channel: int) -> None:
        if isinstance(event, Lag):
            self._service.metrics.lag.observe(event.behind)
        try:
            answers = self._protocol.send(event, channel)
        except Exception as error:  # the stream must not hang because a protocol could not say something
            self._log.broke()
            self.fail(error)
            return
        for answer in answers:
            match answer:
                case Flush():
                    assert self._session is not None
                    self._session.flush(answer.marker)
                case Droppable():
                    self._say(answer.message, droppable=True)
                case _:
                    self._say(answer)

    def _say(self, message: WireMessage, droppable: bool = False) -> None:
        if self._close_info is not None:
            return  # it had the last words, between two answers to one message
        try:
            self._outbox.put(message, droppable)
        except SlowReaderError as error:
            self.fail(error)
        self._send_what_waits()

    def _send_what_waits(self) -> None:
        if self._transport is None or not self._started or self._closed or self._left:
            return
        while self._transport.writable and (message := self._outbox.take()) is not None:
            self._transport.send(message)
        if self._close_info is not None and self._transport.writable:
            self._transport.close(self._close_info.code, self._close_info.close_reason)
            self._closed = True
            if not self._token or self._service.draining:
                self._leave()  # else once the client has answered, and so has got everything

    def fail(self, error: Exception) -> None:
        """End the connection with the last words and the close code for this error."""
        if self._session is not None:
            self._session.close()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._close_info is not None:
            return
        if error is not None:
            self._log.failed(error)
        self._send_close(self._protocol.fail(error))

    def _send_close(self, close_info: CloseInfo) -> None:
        """The last words, whatever led to them. Reading goes on, so that the client's close is heard."""
        self._close_info = close_info
        self._ended_at = self._loop.time()
        self._log.settle()
        self._outbox.put_last(close_info.messages)
        self._on_room()
        self._send_what_waits()
        if self._transport is None and self._service.draining:
            self._leave()

    def check_limits(self, now: float) -> None:
        limits = self._limits
        if self._session is not None and (spent := self._log.spent()) is not None:
            self._session.stop(spent)
        if self._heard or self._held:
            self._heard, self._heard_at = False, now
        if self._transport is None and now - self._lost_at > limits.resume_seconds:
            self._leave()
        elif self._close_info is not None:
            if self._transport is not None and now - self._ended_at > LAST_WORDS_SECONDS:
                self._transport.abort()
        elif limits.handover_seconds is not None and now - self._opened_at > limits.handover_seconds:
            self.restart()
        elif now - self._opened_at > limits.session_seconds:
            self.fail(SessionTooLongError(f"the session reached its limit of {limits.session_seconds:g} s"))
        elif self._transport is not None and now - self._heard_at > limits.idle_seconds:
            self.fail(IdleError(f"no message came for {limits.idle_seconds:g} s"))

    def restart(self) -> None:
        if self._session is not None and self._close_info is None:
            self._session.restart()
        elif self._transport is None or self._closed:
            self._leave()
        else:
            self._end(RestartingError("the server is restarting"))

    def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self._service.leave(self)
        self._service.resumable.pop(self._token, None)
        if self._session is not None:
            self._session.close()
        code = self._close_info.code if self._close_info is not None else 1006
        self._log.closed(str(code), self._outbox.dropped)

"""One client: its messages into the session, the session's events back to it, and the end that fits.

A connection waits for nothing and owns no task. Its transport calls it for every message and when there is room to
write; the server calls `check_limits` once a second. A connection of a resumable protocol outlives its transport: the
session continues, its messages wait in the outbox, and a client that returns in time takes the stream over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tympan.errors import RestartingError, SlowReaderError, TooBigError, TympanError
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
from tympan.server.access.quota import Usage
from tympan.server.service import Service
from tympan.server.sessions.inbox import Inbox
from tympan.server.sessions.outbox import Outbox, ResumableOutbox, outbox_for
from tympan.server.sessions.session_log import SessionLog
from tympan.server.sessions.stream_timer import StreamTimer
from tympan.server.transport import ABNORMAL_CLOSURE, NO_STATUS, Transport
from tympan.session.session import Session

LAST_WORDS_SECONDS = 10.0  # for a client to read its last messages before the socket is cut

NORMAL_CLOSURES = frozenset({1000, 1001, NO_STATUS})  # after any other code the client may resume the stream

_MESSAGES = (str, bytes)  # a union of types would be created anew for every message

MakeProtocol = Callable[[Request, ServerInfo], ServerProtocol]


class Connection:
    """Call `open`, answer the upgrade, then call `start`. The transport makes all other calls, on the event loop.

    Attributes:
        lost_at: When the transport was lost, in the event loop's time; `None` while there is one.
    """

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
        self._usage: Usage | None = None
        self._close_info: CloseInfo | None = None
        self._started = self._resumed = self._close_sent = self._released = False
        self._inbox = Inbox(service.spool, self._limits.backlog_bytes, self._handle, self._set_reading, self.fail)
        self._timer = StreamTimer(self._limits, protocol.idle_factor, self._loop.time())
        self._ended_at = 0.0
        self.lost_at: float | None = None
        self._client_code = ABNORMAL_CLOSURE

    @property
    def credential(self) -> str | None:
        """The credential that the client presented."""
        return self._protocol.credential()

    def open(self) -> Acceptance | Refusal:
        """Admit the client, take its slots, and return the answer to the upgrade."""
        service = self._service
        try:
            account = service.admission.check_client(self.credential, self._request.headers)
            audio_format = self._protocol.start()
            wants_vad = self._protocol.wants_vad or bool(service.observers)
            self._session, self._usage = service.admission.open_session(
                account, self._request.id, audio_format, self, wants_vad=wants_vad
            )
        except TympanError as error:
            return self.refuse(error)
        observers = service.observers.begin(self._request, self._protocol.name, audio_format, service.engine.info)
        self._session.observers += observers
        self._log.opened(self._session, observers)
        self._outbox, self._token = outbox_for(self._protocol, self._limits, service.front)
        if self._token:
            service.connections.resumable[self._token] = self
        service.connections.add(self)
        return self._protocol.accept()

    def refuse(self, error: TympanError) -> Acceptance | Refusal:
        """Return the answer to the upgrade of a client that is not admitted."""
        self._log.refused(error)
        refusal = self._protocol.refuse(error)
        if isinstance(refusal, Refusal):
            return refusal
        self._send_close(refusal)
        self._service.connections.add(self)
        return self._protocol.accept()

    def take_over(self, transport: Transport, received: int) -> None:
        """Continue on another transport; `start` follows.

        The old transport may still look alive: a client notices a lost connection long before its server does.

        Args:
            transport: The client's new WebSocket.
            received: How many messages that matter the client has received.

        Raises:
            ResumeError: The messages after those are no longer kept.
        """
        assert isinstance(self._outbox, ResumableOutbox)
        self._outbox.rewind(received)
        if self._transport is not None:
            self._transport.abandon()
        self._transport, self.lost_at = transport, None
        self._started = self._close_sent = False
        self._resumed = True
        self._inbox.restart()  # the client sends these messages again, since the protocol has not counted them
        self._ended_at = self._loop.time()

    def start(self) -> None:
        """Begin to exchange messages: the upgrade has been answered."""
        self._started = self._timer.received = True
        if self._resumed:
            assert self._transport is not None
            assert isinstance(self._protocol, ResumableProtocol)
            self._log.resumed()
            self._transport.send(self._protocol.resumed())
        else:
            self._service.metrics.connected()
            if self._session is not None:
                self._session.start()
        self.on_writable()

    # --- calls of the transport ----------------------------------------------------------------------------------

    def on_message(self, message: WireMessage) -> None:
        """Handle a complete message once the session has room. Messages after its end are ignored."""
        self._timer.received = True
        self._inbox.put(message)

    def _handle(self, message: WireMessage) -> None:
        session = self._session
        if self._close_info is not None or session is None:
            return
        try:
            if (size := len(message)) > (most := self._limits.message_bytes):
                raise TooBigError(f"a message of {size} bytes is too big; the limit is {most} bytes")
            for action in self._protocol.receive(message):
                if isinstance(action, _MESSAGES):
                    self._send(action)
                elif not session.execute(action):
                    self._inbox.hold()
        except TympanError as error:
            self.fail(error)
        except Exception as error:
            self._log.internal_error()
            self.fail(error)

    def on_writable(self) -> None:
        """Write the messages that wait, as far as the transport has room."""
        if self._transport is None or not self._started or self._close_sent or self._released:
            return
        while self._transport.writable and (message := self._outbox.take()) is not None:
            self._transport.send(message)
        if self._close_info is not None and self._transport.writable:
            self._transport.close(self._close_info.code, self._close_info.close_reason)
            self._close_sent = True
            if not self._token or self._service.connections.draining:
                self.release()  # else when the client answers the close frame: then it has received everything

    def on_gone(self, code: int = ABNORMAL_CLOSURE) -> None:
        """Handle the loss of the transport; `code` is the client's close code. May be called more than once."""
        self._client_code = code
        intended = code in NORMAL_CLOSURES if self._close_info is None else code != ABNORMAL_CLOSURE
        if intended or not self._token or self._service.connections.draining:
            self.release()
        elif self._transport is not None:
            self._log.lost()
            self._transport, self.lost_at = None, self._loop.time()

    # --- calls of the session ------------------------------------------------------------------------------------

    def on_event(self, event: Event, channel: int) -> None:
        """Send what the protocol makes of an event."""
        if isinstance(event, Lag):
            self._service.metrics.lag.observe(event.behind)
        try:
            answers = self._protocol.send(event, channel)
        except Exception as error:  # without this a faulty protocol would leave the stream hanging
            self._log.internal_error()
            self.fail(error)
            return
        for answer in answers:
            match answer:
                case Flush():
                    assert self._session is not None
                    self._session.flush(answer.marker)
                case Droppable():
                    self._send(answer.message, droppable=True)
                case _:
                    self._send(answer)

    def on_room(self) -> None:
        """Handle the messages that wait."""
        self._timer.received = True
        self._inbox.on_room()

    def on_end(self, error: Exception | None) -> None:
        """Send the last messages and close; `None` is a normal end."""
        if self._close_info is not None:
            return
        if error is not None:
            self._log.failed(error)
        self._send_close(self._protocol.fail(error))

    # --- calls of the server -------------------------------------------------------------------------------------

    def check_limits(self, now: float) -> None:
        """End the connection if it is over a limit; `now` is the event loop's time."""
        limits = self._limits
        if self._session is not None and self._usage is not None and (error := self._usage.spent(now)) is not None:
            self._inbox.close()
            self._session.stop(error)
        owes = self._transport is None or bool(self._inbox) or (self._session is not None and self._session.is_behind)
        late = self._timer.check(now, self._session, owes_answer=owes)
        if self.lost_at is not None and now - self.lost_at > limits.resume_seconds:
            self.release()
        elif self._close_info is not None:
            if self._transport is not None and now - self._ended_at > LAST_WORDS_SECONDS:
                self._transport.abort()
        elif limits.handover_seconds is not None and now - self._timer.opened_at > limits.handover_seconds:
            self.restart()
        elif late is not None:
            self.fail(late)

    def restart(self) -> None:
        """Send the last words of everything received and ask the client to reconnect."""
        if self._session is not None and self._close_info is None:
            self._inbox.close()
            self._session.restart()
        elif self._transport is None or self._close_sent:
            self.release()
        else:
            self.on_end(RestartingError("the server is restarting"))

    def fail(self, error: Exception) -> None:
        """End the session at once, with the last messages and the close code for this error."""
        if self._session is not None:
            self._session.close()
        self.on_end(error)

    def _set_reading(self, reading: bool) -> None:
        if self._transport is not None:
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _send(self, message: WireMessage, droppable: bool = False) -> None:
        if self._close_info is not None:
            return  # the session ended between two answers to one message
        try:
            self._outbox.put(message, droppable)
        except SlowReaderError as error:
            self.fail(error)
        self.on_writable()

    def _send_close(self, close_info: CloseInfo) -> None:
        """Send the last messages and the close frame. Reading continues, since the client answers with its own."""
        self._close_info = close_info
        self._ended_at = self._loop.time()
        if self._usage is not None:
            self._usage.end(self._ended_at)
        self._outbox.put_last(close_info.messages)
        self._inbox.close()
        self.on_writable()
        if self._transport is None and self._service.connections.draining:
            self.release()

    def release(self) -> None:
        """Release the slots; the client can no longer resume the stream."""
        if self._released:
            return
        self._released = True
        self._inbox.close()
        self._service.connections.remove(self)
        self._service.connections.resumable.pop(self._token, None)
        if self._session is not None:
            self._session.close()
        if self._usage is not None:
            self._usage.end(self._loop.time())
        code = self._close_info.code if self._close_info is not None else self._client_code
        self._log.closed(str(code), self._outbox.dropped, self._protocol.unsupported)

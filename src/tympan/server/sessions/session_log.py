"""What the operator learns of one session: two lines in the log, metrics, and its recording and span where asked for.

Whoever serves a session (a connection, an upload) opens it here and says how it went.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tympan.errors import QuotaError, TympanError
from tympan.messages import AudioFormat
from tympan.protocols.base import Request
from tympan.server.access.quota import Account, Usage
from tympan.server.service import Service
from tympan.session.observed import ObservedSession, Observer, Outcome
from tympan.session.session import EmitOn, Ended, Session

logger = logging.getLogger(__name__)


class SessionLog:
    """One per session, and of a client that was let in with none; `closed` is its end."""

    def __init__(self, service: Service, request: Request, protocol: str) -> None:
        self._service = service
        self._request = request
        self._protocol = protocol
        self._session: Session | None = None
        self._usage: Usage | None = None
        self._observers: list[Observer] = []
        self._opened_at = time.monotonic()
        self._error = ""
        self._tags = {"session": request.id, "protocol": protocol}

    def open(
        self,
        account: Account,
        audio_format: AudioFormat,
        emit: EmitOn,
        room: Callable[[], None],
        ended: Ended,
        *,
        wants_vad: bool,
        live: bool = True,
    ) -> Session:
        """The session, with its slots taken, on its key's account.

        Raises `QuotaError`, `CapacityError` and `EngineError`.
        """
        service, id = self._service, self._request.id
        common = (id, service.engine, audio_format, service.config, emit, room, ended)
        watched = service.is_watching
        session = (
            ObservedSession(*common, self._observers, live=live)
            if watched
            else Session(*common, wants_vad=wants_vad, live=live)
        )
        try:
            self._usage = account.open(session, audio_format.streams, asyncio.get_running_loop().time())
        except TympanError:
            session.close()
            raise
        self._session = session
        if watched:
            self._observers += service.observers(self._request, self._protocol, audio_format)
        logger.info("%s opened from %s", id, self._request.path, extra={**self._tags, "path": self._request.path})
        return session

    def spent(self) -> QuotaError | None:
        """Count the audio that came since the last time: an error when the key may have no more."""
        return None if self._usage is None else self._usage.spent(asyncio.get_running_loop().time())

    def settle(self) -> None:
        """The session is over: its streams are the key's again. May be called again."""
        if self._usage is not None:
            self._usage.end(asyncio.get_running_loop().time())

    def refused(self, error: TympanError) -> None:
        """There will be no session."""
        self._service.refused(error)
        fields = {"protocol": self._protocol, "path": self._request.path, "error": error.code}
        logger.info("refused %s: %s", self._request.path, error, extra=fields)

    def lost(self) -> None:
        """The client has gone without a goodbye, and may come back."""
        logger.info("%s lost its connection", self._request.id, extra=self._tags)

    def resumed(self) -> None:
        """It has come back."""
        logger.info("%s resumed", self._request.id, extra=self._tags)
        self._service.metrics.resumed.inc()

    def broke(self) -> None:
        """Our own mistake; called where it is caught, for the trace."""
        logger.exception("%s: internal error", self._request.id, extra=self._tags)

    def failed(self, error: Exception) -> None:
        """The session ends with this error. Whoever broke has logged the trace."""
        if isinstance(error, TympanError):
            self._error = error.code
        else:
            self._error = TympanError.code
            logger.error("%s failed: %r", self._request.id, error, extra=self._tags)

    def closed(self, code: str, dropped: int = 0) -> None:
        """Nobody is served any more. `code` is that of `Outcome`; `dropped` messages found no reader."""
        self.settle()
        metrics = self._service.metrics
        metrics.sessions.labels(protocol=self._protocol, code=code).inc()
        metrics.dropped.inc(dropped)
        if self._session is None:
            return
        audio_seconds, words = self._session.received_seconds, self._session.words
        metrics.audio_seconds.inc(audio_seconds)
        metrics.words.inc(words)
        metrics.connection_ended(audio_seconds)
        outcome = Outcome(code, self._error, round(time.monotonic() - self._opened_at, 3), audio_seconds, words)
        for observer in self._observers:
            observer.ended(outcome)
        fields = {
            **self._tags,
            "close_code": code,
            "seconds": outcome.seconds,
            "audio_seconds": audio_seconds,
            "words": words,
            **({"error": self._error} if self._error else {}),
        }
        line = "%s closed with %s: %.1f s of audio, %d words"
        logger.info(line, self._request.id, code, audio_seconds, words, extra=fields)

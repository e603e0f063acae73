"""What the operator learns about one session: a log line at its start and its end, metrics, observers."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

from tympan.errors import TympanError
from tympan.protocols.base import Request
from tympan.protocols.unsupported import sentence
from tympan.server.service import Service
from tympan.session.listener import Observer, Outcome
from tympan.session.session import Session

logger = logging.getLogger(__name__)


class SessionLog:
    """Reports one connection or upload, whether or not it gets a session; `closed` is the last call."""

    def __init__(self, service: Service, request: Request, protocol: str) -> None:
        self._service = service
        self._request = request
        self._session: Session | None = None
        self._observers: Sequence[Observer] = ()
        self._opened_at = time.monotonic()
        self._error = ""
        self._protocol = protocol
        self._fields = {"session": request.id, "protocol": protocol}

    def opened(self, session: Session, observers: Sequence[Observer]) -> None:
        """Report a session that has its slots; `observers` learn the outcome."""
        self._session, self._observers = session, observers
        fields = {**self._fields, "path": self._request.path}
        logger.info("%s opened from %s", self._request.id, self._request.path, extra=fields)

    def refused(self, error: TympanError) -> None:
        """Report a client that gets no session."""
        self._service.count_refusal(error)
        self._service.refusals.add(self._protocol, self._request.path, error)

    def lost(self) -> None:
        """Report that the connection was lost; the client may resume the stream."""
        logger.info("%s lost its connection", self._request.id, extra=self._fields)

    def resumed(self) -> None:
        """Report that the client has resumed the stream."""
        logger.info("%s resumed", self._request.id, extra=self._fields)
        self._service.metrics.resumed.inc()

    def internal_error(self) -> None:
        """Log the exception that is being handled, with its traceback."""
        logger.exception("%s: internal error", self._request.id, extra=self._fields)

    def failed(self, error: Exception) -> None:
        """Report the error that ends the session."""
        if isinstance(error, TympanError):
            self._error = error.code
        else:
            self._error = TympanError.code
            logger.error("%s failed: %r", self._request.id, error, extra=self._fields)

    def closed(self, code: str, dropped: int = 0, unsupported: Collection[str] = ()) -> None:
        """Report the end.

        Args:
            code: As `Outcome.code`.
            dropped: Messages that were left out because the client read too slowly.
            unsupported: What the client requested and the model cannot do.
        """
        metrics = self._service.metrics
        metrics.sessions.labels(protocol=self._protocol, code=code).inc()
        metrics.dropped.inc(dropped)
        if self._session is None:
            return
        if unsupported:
            logger.info("%s: %s", self._request.id, sentence(unsupported), extra=self._fields)
        audio_seconds, words = self._session.received_seconds, self._session.words
        metrics.audio_seconds.inc(audio_seconds)
        metrics.words.inc(words)
        metrics.connection_ended(audio_seconds)
        outcome = Outcome(code, self._error, round(time.monotonic() - self._opened_at, 3), audio_seconds, words)
        for observer in self._observers:
            observer.on_end(outcome)
        fields = {
            **self._fields,
            "close_code": code,
            "seconds": outcome.seconds,
            "audio_seconds": audio_seconds,
            "words": words,
            **({"error": self._error} if self._error else {}),
        }
        line = "%s closed with %s: %.1f s of audio, %d words"
        logger.info(line, self._request.id, code, audio_seconds, words, extra=fields)

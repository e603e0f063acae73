"""The connections of one stream, one after the other: each goes on where the last one ended.

A connection that was lost is resumed if the server kept the stream: its session goes on, and both sides send what the
other has not got. Where it did not, or restarted, a new session is given the audio that was not yet transcribed.
"""

from __future__ import annotations

import logging
from typing import Final

from tympan.client import wire
from tympan.client.dialer import LOST_CODE, Dialer
from tympan.client.outbox import Outbox
from tympan.client.transport import Connection, NoConnectionError
from tympan.messages import Event, Lag, Partial, Ready, Vad

logger = logging.getLogger(__name__)

NOT_COUNTED: Final = (Partial, Vad, Lag)
"""What servers do not send again: the next one of its kind makes up for it."""

CANNOT_RESUME: Final = "cannot_resume"


class Line:
    """`connection` is the current one, once `open` has returned."""

    def __init__(self, dialer: Dialer, outbox: Outbox) -> None:
        self._dialer = dialer
        self._outbox = outbox
        self._token = ""
        self._received = 0
        self.connection: Connection | None = None

    def count(self, message: Event | wire.Failure | wire.Resumed | None) -> None:
        """A message of the session has come; also one that this client does not know."""
        self._received += not isinstance(message, NOT_COUNTED)

    def progress(self) -> None:
        self._dialer.progress()

    async def open(self, after: NoConnectionError | None = None) -> Ready:
        """Begin a session. Raises `NoConnectionError`."""
        opened = await self._dialer.open(after)
        if not isinstance(opened.greeting, Ready):
            await opened.connection.close()
            raise NoConnectionError("closed", "the server resumes what nobody asked for", reason="bad_message")
        self.connection, self._token, self._received = opened.connection, opened.token, 1
        return opened.greeting

    async def reopen(self, ended: NoConnectionError) -> bool:
        """The next connection after one that ended: whether it goes on with the same session.

        Raises `ServerError` if there is none, or if audio would be missing on it.
        """
        try:
            if ended.code == LOST_CODE and self._token and await self._resume(ended):
                return True
            if not self._outbox.replayable:
                raise ended
            ready = await self.open(ended)
        except NoConnectionError as failure:
            raise failure.as_server_error() from None
        self._outbox.rewind()
        logger.info("going on from %.2f s as session %s", self._outbox.base_seconds, ready.session)
        return False

    async def _resume(self, ended: NoConnectionError) -> bool:
        try:
            opened = await self._dialer.open(ended, (self._token, self._received))
        except NoConnectionError as failure:
            if failure.reason == CANNOT_RESUME:
                return False
            raise
        greeting = opened.greeting
        if isinstance(greeting, wire.Resumed) and self._outbox.resume(greeting.audio_bytes, greeting.flushes):
            self.connection = opened.connection
            return True
        await opened.connection.close()
        return False

    async def close(self) -> None:
        if self.connection is not None:
            await self.connection.close()

"""The connections of one stream, one after the other: each continues where the last one ended.

A lost connection is resumed if the server has kept the stream: the session continues, and both sides send what the
other has not received. Otherwise a new session is opened, with the audio that has not been transcribed yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from tympan.client import wire
from tympan.client.backoff import Backoff
from tympan.client.send_buffer import SendBuffer
from tympan.client.transport import Connection, NoConnectionError, Transport
from tympan.messages import Event, Lag, Partial, Ready, Vad

logger = logging.getLogger(__name__)

RETRIED_CLOSE_CODES: Final = frozenset({1011, 1012, 1013})
"""The engine failed and is restarted, the server restarts, the server is full. Audio that makes a server fail brings no
words, so the attempts end."""
LOST_CODE: Final = 1006
BUSY_STATUS: Final = 503
RESTART_STATUSES: Final = frozenset({502, 503, 504})
"""Responses of a gateway while the server behind it restarts."""
READY_TIMEOUT_SECONDS: Final = 30.0
CANNOT_RESUME: Final = "cannot_resume"
NOT_COUNTED: Final = (Partial, Vad, Lag)
"""Events that servers do not repeat after a resume."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A connection and the server's first message; `token` is empty if the stream cannot be resumed."""

    connection: Connection
    greeting: Ready | wire.Resumed
    token: str = ""


class ReconnectingConnection:
    """Opens the connections of a stream, with waits between attempts.

    Args:
        url: The address of the stream.
        headers: Headers of the opening request.
        backoff: When to try again.
        transport: Opens one connection.
        buffer: The audio to send again.

    Attributes:
        current: The current connection, once `open` has returned.
        buffer: The audio to send again.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], backoff: Backoff, transport: Transport, buffer: SendBuffer
    ) -> None:
        self.current: Connection | None = None
        self._url = url
        self._headers = headers
        self._backoff = backoff
        self._transport = transport
        self.buffer = buffer
        self._failures = 0
        self._token = ""
        self._received = 0

    def count(self, message: Event | wire.Failure | wire.Resumed | None) -> None:
        """Count a received message, for a resume; messages of unknown types count as well."""
        self._received += not isinstance(message, NOT_COUNTED)

    def reset_attempts(self) -> None:
        """Start to count attempts again: the server has transcribed something."""
        self._failures = 0

    async def open(self, after: NoConnectionError | None = None) -> Ready:
        """Open a session.

        Args:
            after: How the previous connection ended.

        Raises:
            NoConnectionError: Another attempt would not help, or all have been made.
        """
        opened = await self._open(self._url, after)
        if not isinstance(opened.greeting, Ready):
            await opened.connection.close()
            raise NoConnectionError("closed", "the server resumed a stream without a request", reason="bad_message")
        self.current, self._token, self._received = opened.connection, opened.token, 1
        return opened.greeting

    async def reopen(self, ended: NoConnectionError) -> bool:
        """Open the next connection and return whether it continues the same session.

        Raises:
            ServerError: There is no further connection, or audio would be missing on it.
        """
        try:
            if ended.code == LOST_CODE and self._token and await self._resume(ended):
                return True
            if not self.buffer.replayable:
                raise ended
            ready = await self.open(ended)
        except NoConnectionError as failure:
            raise failure.as_server_error() from None
        self.buffer.rewind()
        logger.info("continuing from %.2f s as session %s", self.buffer.base_seconds, ready.session)
        return False

    async def close(self) -> None:
        """Close the current connection."""
        if self.current is not None:
            await self.current.close()

    async def _resume(self, ended: NoConnectionError) -> bool:
        try:
            opened = await self._open(wire.resume_url(self._url, self._token, self._received), ended)
        except NoConnectionError as failure:
            if failure.reason == CANNOT_RESUME:
                return False
            raise
        greeting = opened.greeting
        if isinstance(greeting, wire.Resumed) and self.buffer.resume(greeting.audio_bytes, greeting.flushes):
            self.current = opened.connection
            return True
        await opened.connection.close()
        return False

    async def _open(self, url: str, after: NoConnectionError | None) -> _Opened:
        reopening = after is not None
        while True:
            if after is not None:
                await self._wait(after, reopening)
            try:
                return await self._open_once(url)
            except NoConnectionError as ended:
                after = ended

    async def _wait(self, ended: NoConnectionError, reopening: bool) -> None:
        self._failures += 1
        if not _may_retry(ended, reopening) or self._failures > self._backoff.attempts:
            raise ended
        seconds = self._backoff.wait_seconds(self._failures, ended.retry_after_seconds)
        attempt = f"attempt {self._failures} of {self._backoff.attempts}"
        logger.warning("%s; trying again in %.1f s (%s)", ended, seconds, attempt)
        await self._backoff.sleep(seconds)

    async def _open_once(self, url: str) -> _Opened:
        connection = await self._transport(url, self._headers)
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                return await _receive_greeting(connection)
        except TimeoutError:
            await connection.close()
            message = f"the server did not report within {READY_TIMEOUT_SECONDS:.0f} s that it is ready"
            raise NoConnectionError("unreachable", message, reason="unreachable") from None
        except BaseException:
            await connection.close()
            raise


def _may_retry(ended: NoConnectionError, reopening: bool) -> bool:
    """Return whether another attempt may help. An address that cannot be reached at first is assumed to be wrong."""
    match ended.cause:
        case "closed":
            return ended.code in RETRIED_CLOSE_CODES or (reopening and ended.code == LOST_CODE)
        case "refused":
            return ended.code == BUSY_STATUS or (reopening and ended.code in RESTART_STATUSES)
        case "unreachable":
            return reopening


async def _receive_greeting(connection: Connection) -> _Opened:
    failure: wire.Failure | None = None
    while True:
        try:
            text = await connection.receive()
            message = wire.decode(text)
        except msgspec.DecodeError as error:
            raise bad_message(error) from None
        except NoConnectionError as ended:
            raise with_server_error(ended, failure) from None
        match message:
            case Ready():
                return _Opened(connection, message, wire.token(text))
            case wire.Resumed():
                return _Opened(connection, message)
            case wire.Failure():
                failure = message


def with_server_error(ended: NoConnectionError, failure: wire.Failure | None) -> NoConnectionError:
    """Return how a connection ended, with the code and text of the server's `error` message if there was one."""
    if failure is None:
        return ended
    return NoConnectionError(ended.cause, failure.message, code=ended.code, reason=failure.code)


def bad_message(error: msgspec.DecodeError) -> NoConnectionError:
    """Return the error for a message that is not of this protocol."""
    return NoConnectionError(
        "closed", f"the server sent a message that is not of this protocol: {error}", reason="bad_message"
    )

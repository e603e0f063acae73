"""Opening the connections of one stream: the first, and the next ones when the server was full or restarts, or the
network failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from tympan.client import wire
from tympan.client.backoff import Backoff
from tympan.client.transport import Connection, NoConnectionError, Transport
from tympan.messages import Ready

logger = logging.getLogger(__name__)

RETRIED_CLOSE_CODES: Final = frozenset({1011, 1012, 1013})
"""Its engine broke and is started again, it restarts, it is full. Audio that breaks a server brings no word, so that it
is not sent for ever."""
LOST_CODE: Final = 1006
BUSY_STATUS: Final = 503
RESTART_STATUSES: Final = frozenset({502, 503, 504})
"""What a gateway answers while the server behind it restarts."""

READY_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection, and what the server said first; `token` is empty if it would not keep the stream."""

    connection: Connection
    greeting: Ready | wire.Resumed
    token: str = ""


class Dialer:
    """Opens connections to one address, with waits between attempts."""

    def __init__(self, url: str, headers: Mapping[str, str], backoff: Backoff, transport: Transport) -> None:
        self._url = url
        self._headers = headers
        self._backoff = backoff
        self._transport = transport
        self._failures = 0

    def progress(self) -> None:
        """The server has transcribed something: the next failure counts as the first again."""
        self._failures = 0

    async def open(self, after: NoConnectionError | None = None, way_back: tuple[str, int] | None = None) -> Opened:
        """A connection; `after` says how the stream's last one ended, `way_back` gives the token of the session to go
        on with and the number of its messages that have come.

        Raises:
            NoConnectionError: trying again would not help, or has been done often enough.
        """
        url = self._url if way_back is None else wire.resume_url(self._url, *way_back)
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

    async def _open_once(self, url: str) -> Opened:
        connection = await self._transport(url, self._headers)
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                return await _greeted(connection)
        except TimeoutError:
            await connection.close()
            message = f"the server did not say within {READY_TIMEOUT_SECONDS:.0f} s that it is ready"
            raise NoConnectionError("unreachable", message, reason="unreachable") from None
        except BaseException:
            await connection.close()
            raise


def _may_retry(ended: NoConnectionError, reopening: bool) -> bool:
    """A first attempt that reaches nobody is a wrong address; later, the server is on its way back."""
    match ended.cause:
        case "closed":
            return ended.code in RETRIED_CLOSE_CODES or (reopening and ended.code == LOST_CODE)
        case "refused":
            return ended.code == BUSY_STATUS or (reopening and ended.code in RESTART_STATUSES)
        case "unreachable":
            return reopening


async def _greeted(connection: Connection) -> Opened:
    failure: wire.Failure | None = None
    while True:
        try:
            text = await connection.receive()
            message = wire.decode(text)
        except msgspec.DecodeError as error:
            raise bad_message(error) from None
        except NoConnectionError as ended:
            raise last_words(ended, failure) from None
        match message:
            case Ready():
                return Opened(connection, message, wire.token(text))
            case wire.Resumed():
                return Opened(connection, message)
            case wire.Failure():
                failure = message


def last_words(ended: NoConnectionError, failure: wire.Failure | None) -> NoConnectionError:
    """How a connection ended, in the words of the server's `error` message where there was one."""
    if failure is None:
        return ended
    return NoConnectionError(ended.cause, failure.message, code=ended.code, reason=failure.code)


def bad_message(error: msgspec.DecodeError) -> NoConnectionError:
    return NoConnectionError(
        "closed", f"the server sent something else than this protocol: {error}", reason="bad_message"
    )

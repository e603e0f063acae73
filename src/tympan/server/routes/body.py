"""The body of a request, read within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from tympan.config import LimitSettings
from tympan.errors import IdleError, TooBigError
from tympan.server.access.quota import Account

CHUNK_BYTES = 64 * 1024


class Body:
    """Limits the body of a request.

    Args:
        request: The request as received.
        limits: The time without data, and for the whole body.
        most_bytes: The largest size.
        account: Counts the bytes of a file.

    Attributes:
        request: The request to read. Reading its body raises `TooBigError` above the limit, `IdleError` if no data
            arrives in time, and `QuotaError` if the account has reached its limit.
    """

    def __init__(
        self, request: Request, limits: LimitSettings, most_bytes: int, account: Account | None = None
    ) -> None:
        self._account = account
        self._receive = request.receive
        self._idle_seconds = limits.idle_seconds
        self._deadline = asyncio.get_running_loop().time() + limits.session_seconds
        self._most_bytes = most_bytes
        self._read_bytes = 0
        self._next: Message | None = None
        self.request = Request(request.scope, self._receive_limited)

    async def is_connected(self) -> bool:
        """Return whether the client still waits for the response."""
        if self._next is None:
            receiving = asyncio.ensure_future(self._receive())
            await asyncio.sleep(0)
            if not receiving.done():
                receiving.cancel()
            with suppress(asyncio.CancelledError):
                self._next = await receiving
        return self._next is None or self._next["type"] != "http.disconnect"

    async def _receive_limited(self) -> Message:
        message, self._next = self._next, None
        now = asyncio.get_running_loop().time()
        if message is None:
            try:
                async with asyncio.timeout_at(min(now + self._idle_seconds, self._deadline)):
                    message = await self._receive()
            except TimeoutError:
                raise IdleError("the body of the request did not arrive in time") from None
        size = len(message.get("body", b""))
        if self._account is not None:
            self._account.upload(size, now)
        self._read_bytes += size
        if self._read_bytes > self._most_bytes:
            raise TooBigError(f"the upload is larger than the limit of {self._most_bytes >> 20} MiB")
        return message


async def chunks_of(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield the bytes of a form's file in chunks."""
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk

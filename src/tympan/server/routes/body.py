"""The body of a request, read within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from tympan.audio.budget import ByteBudget
from tympan.config import LimitSettings
from tympan.errors import IdleError, TooBigError
from tympan.protocols.wire import MOST_COMMAND_BYTES
from tympan.server.access.quota import Account

CHUNK_BYTES = 64 * 1024
BUFFERED_SECONDS = 20.0  # for every 64 KiB of a body that is kept until it is complete


class Body:
    """Limits the body of a request.

    Args:
        request: The request as received.
        limits: The time without data, and for the whole body.
        most_bytes: The largest size.
        account: Counts the bytes of a file.
        buffer: The budget of a body that is kept until it is complete, as a form is; it must not arrive slowly, and
            `release` returns its bytes.

    Attributes:
        request: The request to read. Reading its body raises `TooBigError` above the limit, `IdleError` if no data
            arrives in time, `QuotaError` if the account has reached its limit, and `CapacityError` if the bodies of all
            requests exceed the budget.
    """

    def __init__(
        self,
        request: Request,
        limits: LimitSettings,
        most_bytes: int,
        account: Account | None = None,
        buffer: ByteBudget | None = None,
    ) -> None:
        self._account = account
        self._buffer = buffer
        self._buffered_bytes = 0
        self._receive = request.receive
        self._idle_seconds = limits.idle_seconds
        self._deadline = asyncio.get_running_loop().time() + limits.session_seconds
        self._most_bytes = most_bytes
        self._read_bytes = self._next_bytes = 0
        self._next_bytes_at = 0.0
        self._next: Message | None = None
        self.request = Request(request.scope, self._receive_limited)

    def release(self) -> None:
        """Return the bytes of a body that is no longer kept to the budget."""
        if self._buffer is not None:
            self._buffer.release(self._buffered_bytes)
            self._buffered_bytes = 0

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
                async with asyncio.timeout_at(self._next_deadline(now)):
                    message = await self._receive()
            except TimeoutError:
                raise IdleError("the body of the request did not arrive in time") from None
        size = len(message.get("body", b""))
        if self._buffer is not None:
            self._buffer.take(size)
            self._buffered_bytes += size
        if self._account is not None:
            self._account.upload(size, now)
        self._read_bytes += size
        if self._read_bytes > self._most_bytes:
            raise TooBigError(f"the body of the request is larger than the limit of {self._most_bytes:,} bytes")
        return message

    def _next_deadline(self, now: float) -> float:
        if self._buffer is None:
            return min(now + self._idle_seconds, self._deadline)
        if self._read_bytes >= self._next_bytes:
            self._next_bytes = self._read_bytes + CHUNK_BYTES
            self._next_bytes_at = now + min(self._idle_seconds, BUFFERED_SECONDS)
        return self._next_bytes_at


async def chunks_of(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield the bytes of a form's file in chunks."""
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk


async def read_small(request: Request, limits: LimitSettings, buffer: ByteBudget) -> bytes:
    """Return the body of a request that contains no audio."""
    body = Body(request, limits, MOST_COMMAND_BYTES, buffer=buffer)
    try:
        return await body.request.body()
    finally:
        body.release()

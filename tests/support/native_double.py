"""A server that follows docs/protocols/native.md and ends its connections the way a test wants.

Only for what the real server cannot be made to do on demand: restarts at a chosen byte, 1013, 503 and other refusals.
Audio is 8 kHz s16le. It hears one word per quarter of a second, named after that quarter's first sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Self

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

RATE = 8_000
WORD_SAMPLES = RATE // 4


def ramp(seconds: float) -> bytes:
    """Audio whose samples count up, so that every place in it is recognized."""
    return np.arange(round(seconds * RATE)).astype("<i2").tobytes()


@dataclass
class Life:
    """One connection: after so many bytes, or at the client's finish, it ends with a code; what came later is
    dropped.
    """

    after_bytes: int | None = None
    code: int = 1012
    finish_code: int = 1000
    complete: bool = True
    words: bool = True
    restarting: bool = False
    """Whether it says before its last words that it goes down."""
    error: tuple[str, str] | None = None
    received: bytearray = field(default_factory=bytearray)
    flushes: list[int] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.after_bytes is not None and len(self.received) >= self.after_bytes


@dataclass
class Refusal:
    """An answer before the upgrade."""

    status: int
    code: str
    message: str
    retry_after: str | None = None


class NativeDouble:
    """Serves one life per connection, after the refusals are used up. `urls` are the paths that were asked for."""

    def __init__(self, lives: Iterable[Life], refusals: Iterable[Refusal] = ()) -> None:
        self.lives = list(lives)
        self.used: list[Life] = []
        self.refusals = list(refusals)
        self.requests: list[Request] = []
        self._server: Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await serve(self._handle, "127.0.0.1", 0, process_request=self._process_request)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if not self.refusals:
            return None
        refusal = self.refusals.pop(0)
        body = json.dumps({"error": {"code": refusal.code, "message": refusal.message}})
        response = connection.respond(HTTPStatus(refusal.status), body)
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = refusal.retry_after
        return response

    async def _handle(self, socket: ServerConnection) -> None:
        life = self.lives.pop(0)
        self.used.append(life)
        await self._say(
            socket,
            "ready",
            session=f"life{len(self.used)}",
            model="double",
            engine="double",
            sample_rate=RATE,
            delay_seconds=0.5,
            pause_horizons=[],
        )
        async for message in socket:
            if isinstance(message, bytes):
                life.received += message
                if life.full:
                    break
            elif message == "EOS" or json.loads(message)["type"] == "finish":
                life.code = life.finish_code
                break
            elif (command := json.loads(message))["type"] == "flush":
                life.flushes.append(command["id"])
                await self._say(socket, "flushed", id=command["id"])
        await self._end(socket, life)

    async def _end(self, socket: ServerConnection, life: Life) -> None:
        if life.after_bytes is not None:
            del life.received[life.after_bytes :]
        samples = np.frombuffer(bytes(life.received[: len(life.received) // 2 * 2]), "<i2")
        starts = range(0, len(samples) if life.complete else len(samples) // WORD_SAMPLES * WORD_SAMPLES, WORD_SAMPLES)
        for start in starts:
            if life.restarting and start == starts[-1]:
                await self._say(socket, "restarting")
            end = min(start + WORD_SAMPLES, len(samples)) / RATE
            if life.words:
                await self._say(socket, "word", text=str(samples[start]), start=start / RATE, end=end, confidence=1.0)
        if life.restarting:
            await self._say(socket, "segment", text="all", start=0.0, end=len(samples) / RATE)
            await self._say(socket, "turn", state="ended", time=len(samples) / RATE, probability=1.0)
        if life.error is not None:
            await self._say(socket, "error", code=life.error[0], message=life.error[1])
        elif life.complete:
            seconds = round(len(samples) / RATE, 3)
            await self._say(socket, "complete", status="complete", audio_seconds=seconds, words=len(starts))
        await socket.close(life.code)

    @staticmethod
    async def _say(socket: ServerConnection, kind: str, **fields: object) -> None:
        await socket.send(json.dumps({"type": kind, **fields}))

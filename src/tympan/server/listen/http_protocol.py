"""uvicorn's HTTP, with an end to patience: for a request to come, for what stands before its body, for the answer to be
read. Without it, whoever opens a connection and says nothing, or one header a minute, has it for ever (Slowloris).
"""

from __future__ import annotations

import asyncio

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS = 10.0  # for a request line and its headers, from the first byte or from the answer before it
HEAD_BYTES = 15 * 1024  # picows, which reads the opening of a WebSocket again, takes 16 KiB
STUCK_SECONDS = 30.0  # for a client to read any of an answer


class HttpProtocol(HttpToolsProtocol):
    """One connection, until it is closed or becomes a WebSocket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._answering: RequestResponseCycle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._stuck: asyncio.TimerHandle | None = None
        self._due: asyncio.TimerHandle | None = None
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_came()
        self._unstuck()
        self._nobody_listens()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._nobody_listens()

    def handle_websocket_upgrade(self) -> None:
        self._nobody_listens()
        super().handle_websocket_upgrade()

    def _nobody_listens(self) -> None:
        """The answer to a request before the broken one has nowhere to go; uvicorn thinks of the newest only."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Raises `ValueError`, which uvicorn answers with 400."""
        self._in_head = False
        self._request_came()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("the headers are too long")
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(STUCK_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._unstuck()
        super().resume_writing()

    def _expect_request(self) -> None:
        self._request_came()
        self._due = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _request_came(self) -> None:
        if self._due is not None:
            self._due.cancel()

    def _unstuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()

    def _too_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # else the next request had come already
            self.transport.abort()

"""WebSockets of any ASGI server, for platforms that bring their own, such as Modal and Ray Serve.

The platform decides what a connection may cost before its first message: the size of a message in memory, the length of
its queues, pings, and the time limit of the handshake. This module limits the rest.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from tympan.protocols.base import Refusal, WireMessage
from tympan.server.listen.base import BURST_MESSAGES, MESSAGES_PER_SECOND, BaseTransport
from tympan.server.routes.responses import request_of, response_of
from tympan.server.service import Service
from tympan.server.sessions.connection import MakeProtocol
from tympan.server.sessions.resume import open_connection
from tympan.server.transport import ABNORMAL_CLOSURE, NO_STATUS

logger = logging.getLogger(__name__)


async def serve(websocket: WebSocket, service: Service, make_protocol: MakeProtocol) -> None:
    """Handle one WebSocket from its opening request to its end."""
    transport = AsgiTransport(websocket)
    connection, answer = open_connection(transport, service, make_protocol, request_of(websocket))
    if isinstance(answer, Refusal):
        await websocket.send_denial_response(response_of(answer))
        return
    transport.connection = connection
    try:
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await websocket.accept(answer.subprotocol, headers)
        await transport.run()
    finally:
        transport.gone()


class AsgiTransport(BaseTransport):
    """One WebSocket with two tasks, a reader and a writer. Messages are sent one at a time."""

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__()
        self._websocket = websocket
        self._outgoing: asyncio.Queue[WireMessage | tuple[int, str]] = asyncio.Queue()
        self._reading = asyncio.Event()
        self._reading.set()
        self._writer: asyncio.Task[None] | None = None
        self._close_code = ABNORMAL_CLOSURE

    def send(self, message: WireMessage) -> None:
        self.writable = False
        self._outgoing.put_nowait(message)

    def close(self, code: int, reason: str) -> None:
        self._outgoing.put_nowait((code, reason))

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.cancel()

    def gone(self) -> None:
        self._detach(self._close_code)

    async def run(self) -> None:
        """Pass messages both ways until the client has disconnected or the close frame has been sent."""
        if self.connection is None:
            return
        self.connection.start()
        reader = asyncio.create_task(self._read())
        self._writer = writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        count, since = 0, loop.time()
        while True:
            await self._reading.wait()
            count += 1
            if count == BURST_MESSAGES:  # queued messages are received without yielding to other tasks
                await asyncio.sleep(since + count / MESSAGES_PER_SECOND - loop.time())
                count, since = 0, loop.time()
            message = await self._websocket.receive()
            if self.connection is None:
                return
            if message["type"] == "websocket.disconnect":
                code = message.get("code")
                # ASGI reports 1005 for a close without a code; uvicorn also reports it for a lost connection.
                self._close_code = ABNORMAL_CLOSURE if code in (None, NO_STATUS) else code
                return
            data: WireMessage | None = message.get("bytes")
            self.connection.on_message(message["text"] if data is None else data)

    async def _write(self) -> None:
        try:
            while not isinstance(message := await self._outgoing.get(), tuple):
                name = "text" if isinstance(message, str) else "bytes"
                await self._websocket.send({"type": "websocket.send", name: message})
                self._on_writable()
            await self._websocket.close(*message)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("the client has disconnected: %r", error)

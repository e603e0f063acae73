"""WebSockets of any ASGI server: for platforms that bring their own, such as Modal's and Ray Serve's.

What a connection may cost before its first message is here, the platform decides: the size of a message in memory, what
waits in its queues, pings, the time that a handshake may take. What can be held back here is held back.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from tympan.protocols.base import Refusal, WireMessage
from tympan.server.routes.responses import request_of, response_of
from tympan.server.service import Service
from tympan.server.sessions.connection import MakeProtocol
from tympan.server.sessions.resume import open_connection
from tympan.server.transport import ABNORMAL_CLOSURE, NO_STATUS, TransportListener

logger = logging.getLogger(__name__)

MANY_MESSAGES = 250  # after so many, a client that sends faster than …
MESSAGES_PER_SECOND = 5_000  # … this waits: what has arrived comes without a pause in which others had their turn


async def serve(websocket: WebSocket, service: Service, make_protocol: MakeProtocol) -> None:
    """Handle one opening request to the end of its connection."""
    request = request_of(websocket)
    transport = AsgiWire(websocket)
    connection, answer = open_connection(transport, service, make_protocol, request)
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


class AsgiWire:
    """Two tasks per connection: one waits for the client, one for what it is told. Messages go out one at a time."""

    def __init__(self, websocket: WebSocket) -> None:
        self.writable = True
        self.connection: TransportListener | None = None
        self._websocket = websocket
        self._outgoing: asyncio.Queue[WireMessage | tuple[int, str]] = asyncio.Queue()
        self._reading = asyncio.Event()
        self._reading.set()
        self._task: asyncio.Task[None] | None = None
        self._goodbye = ABNORMAL_CLOSURE

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
        if self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        self.connection = None
        self.abort()

    def gone(self) -> None:
        if self.connection is not None:
            self.connection.on_gone(self._goodbye)

    async def run(self) -> None:
        """Until the client is gone, or has been told the end."""
        if self.connection is None:
            return
        self.connection.start()
        reader = asyncio.create_task(self._read())
        self._task = writer = asyncio.create_task(self._write())
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
            if count == MANY_MESSAGES:
                await asyncio.sleep(since + count / MESSAGES_PER_SECOND - loop.time())
                count, since = 0, loop.time()
            message = await self._websocket.receive()
            if self.connection is None:
                return
            if message["type"] == "websocket.disconnect":
                self._goodbye = _goodbye(message.get("code"))
                return
            data: WireMessage | None = message.get("bytes")
            self.connection.on_message(message["text"] if data is None else data)

    async def _write(self) -> None:
        try:
            while not isinstance(message := await self._outgoing.get(), tuple):
                name = "text" if isinstance(message, str) else "bytes"
                await self._websocket.send({"type": "websocket.send", name: message})
                self.writable = True
                if self.connection is not None:
                    self.connection.on_writable()
            await self._websocket.close(*message)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("the client is gone: %r", error)


def _goodbye(code: int | None) -> int:
    """ASGI has 1005 for clients that closed without a code, and uvicorn also for those that closed not at all."""
    return ABNORMAL_CLOSURE if code in (None, NO_STATUS) else code

"""WebSockets of any ASGI server: for platforms that bring their own, such as Modal's and Ray Serve's."""

from __future__ import annotations

import asyncio
import logging

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from tympan.protocols.base import Refusal, WireMessage
from tympan.server.answers import request_of
from tympan.server.connection import Connection, MakeProtocol
from tympan.server.service import Service

logger = logging.getLogger(__name__)


async def serve(websocket: WebSocket, service: Service, make_protocol: MakeProtocol) -> None:
    """Handle one opening request to the end of its connection."""
    request = request_of(websocket)
    wire = AsgiWire(websocket)
    connection = Connection(wire, service, make_protocol(request, service.offer), request)
    answer = connection.open()
    if isinstance(answer, Refusal):
        await websocket.send_denial_response(Response(answer.body, answer.status, dict(answer.headers)))
        return
    try:
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await websocket.accept(answer.subprotocol, headers)
        connection.start()
        await wire.run(connection)
    finally:
        connection.on_gone()


class AsgiWire:
    """Two tasks per connection: one waits for the client, one for what it is told. Messages go out one at a time."""

    def __init__(self, websocket: WebSocket) -> None:
        self.writable = True
        self._websocket = websocket
        self._outgoing: asyncio.Queue[WireMessage | tuple[int, str]] = asyncio.Queue()
        self._reading = asyncio.Event()
        self._reading.set()
        self._task: asyncio.Task[None] | None = None

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

    async def run(self, connection: Connection) -> None:
        """Until the client is gone, or has been told the end."""
        reader = asyncio.create_task(self._read(connection))
        self._task = writer = asyncio.create_task(self._write(connection))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, connection: Connection) -> None:
        while True:
            await self._reading.wait()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data: WireMessage | None = message.get("bytes")
            connection.on_message(message["text"] if data is None else data)

    async def _write(self, connection: Connection) -> None:
        try:
            while not isinstance(message := await self._outgoing.get(), tuple):
                name = "text" if isinstance(message, str) else "bytes"
                await self._websocket.send({"type": "websocket.send", name: message})
                self.writable = True
                connection.on_writable()
            await self._websocket.close(*message)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            logger.debug("the client is gone: %r", error)

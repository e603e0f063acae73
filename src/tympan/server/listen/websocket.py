"""WebSockets by picows, under uvicorn: a message reaches its connection in the turn of the event loop that read it.

Between uvicorn and an ASGI app a message passes a queue, a task and two dictionaries, which cost more than all that
Tympan does with 80 ms of audio. Where the server is not ours, `asgi_socket.py` takes that way.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from typing import Any, NoReturn, cast
from urllib.parse import parse_qsl, unquote

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol, WSProtocolError  # type: ignore[attr-defined]  # not in its stubs
from uvicorn.config import Config
from uvicorn.server import ServerState

from tympan.protocols.base import Refusal, WireMessage
from tympan.server.listen.coalescer import MessageCoalescer
from tympan.server.routes.responses import opening_request
from tympan.server.service import Service
from tympan.server.sessions.connection import MakeProtocol
from tympan.server.sessions.resume import open_connection
from tympan.server.transport import ABNORMAL_CLOSURE, NO_STATUS, TransportListener

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # for a client to answer a close
HANDSHAKE_SECONDS = 5.0
READ_BUFFER_BYTES = 16 * 1024  # at first; it grows with the messages
READ_BYTES = 16 * 1024  # at once
MANY_FRAMES = 250  # in one read: such a client is not read again before others had their turn …
FRAMES_PER_SECOND = 5_000  # … so that it gets no more than this

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION

_silent = logging.getLogger("picows")
_silent.setLevel(logging.CRITICAL)  # it calls what peers do wrong an error


class Socket(WSListener):
    """A connection's wire."""

    def __init__(self, protocol: SocketProtocol, most_bytes: int) -> None:
        self.writable = True
        self.connection: TransportListener | None = None
        self._protocol = protocol
        self._most_bytes = most_bytes
        self._parts: bytearray | None = None  # of a message that has begun
        self._parts_kind = _CONTINUATION
        self._closing: asyncio.TimerHandle | None = None
        self._held = False
        self._frames = 0  # of this read
        self._resting: asyncio.TimerHandle | None = None

    # --- what the connection asks for ----------------------------------------------------------------------------

    def send(self, message: WireMessage) -> None:
        self._protocol.transport.send(_TEXT if isinstance(message, str) else _BINARY, message)

    def close(self, code: int, reason: str) -> None:
        self._protocol.transport.send_close(code, reason)
        self._abort_soon()

    def pause_reading(self) -> None:
        self._held = True
        self._read_or_not()

    def resume_reading(self) -> None:
        self._held = False
        self._read_or_not()

    def abort(self) -> None:
        self._protocol.transport.disconnect(graceful=False)

    def abandon(self) -> None:
        self.connection = None
        self.abort()

    def _rest(self, seconds: float) -> None:
        """Read nothing for so long."""
        if self._resting is None:
            self._resting = asyncio.get_running_loop().call_later(seconds, self._rested)
            self._read_or_not()

    def _rested(self) -> None:
        self._resting = None
        self._read_or_not()

    def _read_or_not(self) -> None:
        transport = self._protocol.transport.underlying_transport
        if self._held or self._resting is not None:
            transport.pause_reading()
        elif not transport.is_closing():
            transport.resume_reading()

    # --- what picows tells ---------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self.connection is not None:
            self.connection.start()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        connection = self.connection
        if connection is None:
            return
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._break(WSCloseCode.PROTOCOL_ERROR, "an extension that was not agreed on")
        if kind == _BINARY and frame.fin and self._parts is None:
            self._protocol.coalescer.put(connection, frame.get_payload_as_bytes())
        elif kind in (_TEXT, _BINARY, _CONTINUATION):
            self._gather(frame, kind)
        else:
            self._control(transport, frame, kind)
        self._frames += 1
        if frame.last_in_buffer:
            if self._frames > MANY_FRAMES:
                self._rest(self._frames / FRAMES_PER_SECOND)
            self._frames = 0

    def _control(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        if kind == WSMsgType.PING:
            if self.writable:  # who does not read does not miss it, and would make us keep them all
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._leave(cast(int, frame.get_close_code()) or NO_STATUS)
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            self._abort_soon()

    def _gather(self, frame: WSFrame, kind: WSMsgType) -> None:
        """Text, and messages in parts. Raises `WSProtocolError`."""
        assert self.connection is not None
        if (kind == _CONTINUATION) != (self._parts is not None):
            self._break(WSCloseCode.PROTOCOL_ERROR, "a frame out of order")
        if self._parts is None:
            self._parts, self._parts_kind = bytearray(), kind
        self._parts += frame.get_payload_as_memoryview()
        if len(self._parts) > self._most_bytes:
            self._break(WSCloseCode.MESSAGE_TOO_BIG, "the message is too big")
        if not frame.fin:
            return
        whole, self._parts = bytes(self._parts), None
        if self._parts_kind == _BINARY:
            self._protocol.coalescer.put(self.connection, whole)
            return
        try:
            text = whole.decode()
        except UnicodeDecodeError:
            self._break(WSCloseCode.INVALID_TEXT, "a text message that is not UTF-8")
        self._protocol.coalescer.put(self.connection, text)

    def _break(self, code: WSCloseCode, reason: str) -> NoReturn:
        """The peer broke the protocol: its slots are free now, however long its socket takes to close."""
        self._leave(NO_STATUS)
        self._abort_soon()
        raise WSProtocolError(code, reason)

    def _abort_soon(self) -> None:
        """A peer that reads no more would keep what was written to it, and the socket, for ever."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.connection is not None:
            self.connection.on_writable()

    def gone(self) -> None:
        for timer in (self._closing, self._resting):
            if timer is not None:
                timer.cancel()
        self._leave(ABNORMAL_CLOSURE)

    def _leave(self, code: int) -> None:
        """The connection hears once how this socket ended, and no more of it: it may have another one by then."""
        self._protocol.coalescer.hear()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.on_gone(code)


class SocketProtocol(WSProtocol):  # type: ignore[misc]
    """What uvicorn makes for a request to upgrade; the arguments after `endpoints` are uvicorn's."""

    def __init__(
        self,
        service: Service,
        endpoints: Mapping[str, MakeProtocol],
        coalescer: MessageCoalescer,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(
            None,
            None,
            False,  # is_client_side
            self._answer,
            _silent,
            True,  # disconnect_on_exception
            HANDSHAKE_SECONDS,
            False,  # enable_auto_ping: while a fast client is held back, its pongs wait behind its audio
            20.0,
            20.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: it does not look whether there is room
            config.ws_max_size,
            None,
            READ_BUFFER_BYTES,
        )
        self.coalescer = coalescer
        self._service = service
        self._endpoints = endpoints
        self._others = server_state.connections
        self._socket = Socket(self, config.ws_max_size)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._others.add(cast(Any, self))
        super().connection_made(transport)

    def get_buffer(self, size_hint: int) -> memoryview:
        return cast(memoryview, super().get_buffer(size_hint))[:READ_BYTES]

    def data_received(self, data: bytes) -> None:
        """Uvicorn has read the request already, and hands it on; what follows is read into the buffer."""
        self.get_buffer(len(data))[: len(data)] = data
        self.buffer_updated(len(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._others.discard(cast(Any, self))
        super().connection_lost(error)
        self._socket.gone()

    def shutdown(self) -> None:
        """Uvicorn is stopping. Connections have been told before it; this is for what is left."""
        self.transport.send_close(WSCloseCode.SERVICE_RESTART)

    def _answer(self, upgrade: WSUpgradeRequest) -> WSUpgradeResponseWithListener | None:
        """The answer to the upgrade; `None` is 404."""
        try:
            return self._open(upgrade)
        except Exception:
            logger.exception("internal error")
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(500), None)

    def _open(self, upgrade: WSUpgradeRequest) -> WSUpgradeResponseWithListener | None:
        path, _, query = upgrade.path.decode("latin-1").partition("?")
        make_protocol = self._endpoints.get(unquote(path))
        if make_protocol is None:
            return None
        headers = {name.lower(): _latin(value) for name, value in reversed(list(upgrade.headers.items()))}
        request = opening_request(unquote(path), dict(parse_qsl(query, keep_blank_values=True)), headers)
        connection, answer = open_connection(self._socket, self._service, make_protocol, request)
        if isinstance(answer, Refusal):
            response = WSUpgradeResponse.create_error_response(answer.status, answer.body, answer.headers)
            return WSUpgradeResponseWithListener(response, None)
        self._socket.connection = connection
        chosen = {} if answer.subprotocol is None else {"Sec-WebSocket-Protocol": answer.subprotocol}
        response = WSUpgradeResponse.create_101_response({**answer.headers, **chosen})
        return WSUpgradeResponseWithListener(response, self._socket)


def _latin(value: str) -> str:
    """A header's value as other servers read it; picows makes surrogates of what is not ASCII."""
    return value.encode("ascii", "surrogateescape").decode("latin-1")


def protocol_class(service: Service, endpoints: Mapping[str, MakeProtocol]) -> Any:
    """For uvicorn's `ws` setting: one WebSocket protocol per path."""
    return functools.partial(SocketProtocol, service, endpoints, MessageCoalescer(asyncio.get_running_loop()))

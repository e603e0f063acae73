"""WebSockets by picows, under uvicorn: a message reaches its connection in the event loop iteration that read it.

Between uvicorn and an ASGI application, a message passes through a queue, a task and two dictionaries. They cost more
than everything that Tympan does with 80 ms of audio. `asgi_websocket.py` does without picows, for other ASGI servers.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from typing import Any, NoReturn, cast

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
from tympan.server.listen.base import BURST_MESSAGES, MESSAGES_PER_SECOND, BaseTransport
from tympan.server.listen.coalescer import MessageCoalescer
from tympan.server.listen.opening import error_response, parse_opening
from tympan.server.listen.relay import LocalTransport, is_local
from tympan.server.listen.socket_limit import SocketLimit
from tympan.server.service import Service
from tympan.server.sessions.connection import MakeProtocol
from tympan.server.sessions.resume import open_connection
from tympan.server.transport import ABNORMAL_CLOSURE, NO_STATUS

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_SECONDS = 10.0  # for a client to answer a close frame
HANDSHAKE_TIMEOUT_SECONDS = 5.0
READ_BUFFER_BYTES = 16 * 1024  # initial size; it grows with the messages
MAX_READ_BYTES = 16 * 1024  # of one read

_NOT_SENT = (1004, NO_STATUS, ABNORMAL_CLOSURE, 1015)  # close codes that only report how a connection ended

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION

_picows_logger = logging.getLogger("picows")
_picows_logger.setLevel(logging.CRITICAL)  # picows logs protocol violations of clients as errors


class PicowsTransport(BaseTransport, WSListener):
    """One WebSocket, as picows calls it and as its connection uses it."""

    def __init__(self, protocol: WebSocketProtocol, max_message_bytes: int) -> None:
        super().__init__()
        self._protocol = protocol
        self._max_message_bytes = max_message_bytes
        self._fragments: bytearray | None = None  # of the message that has begun
        self._fragments_type = _CONTINUATION
        self._abort_timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._throttle_timer: asyncio.TimerHandle | None = None
        self._frames_in_read = 0

    # --- Called by the connection ---------------------------------------------------------------------------------

    def send(self, message: WireMessage) -> None:
        self._protocol.transport.send(_TEXT if isinstance(message, str) else _BINARY, message)

    def close(self, code: int, reason: str) -> None:
        self._protocol.transport.send_close(code, reason)
        self._abort_later()

    def pause_reading(self) -> None:
        self._paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._update_reading()

    def abort(self) -> None:
        self._protocol.transport.disconnect(graceful=False)

    # --- Called by picows -----------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self.connection is not None:
            self.connection.start()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        connection = self.connection
        if connection is None:
            return
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(WSCloseCode.PROTOCOL_ERROR, "an extension was used that was not negotiated")
        if kind == _BINARY and frame.fin and self._fragments is None:
            self._protocol.coalescer.put(connection, frame.get_payload_as_bytes())
        elif kind in (_TEXT, _BINARY, _CONTINUATION):
            self._on_fragment(frame, kind)
        else:
            self._on_control_frame(transport, frame, kind)
        self._frames_in_read += 1
        if frame.last_in_buffer:
            if self._frames_in_read > BURST_MESSAGES:
                self._throttle(self._frames_in_read / MESSAGES_PER_SECOND)
            self._frames_in_read = 0

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self._on_writable()

    def gone(self) -> None:
        for timer in (self._abort_timer, self._throttle_timer):
            if timer is not None:
                timer.cancel()
        self._detach(ABNORMAL_CLOSURE)

    # --- Helpers --------------------------------------------------------------------------------------------------

    def _on_control_frame(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        if kind == WSMsgType.PING:
            if self.writable:  # pongs for a client that does not read would fill the memory
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._on_close_frame(transport, frame)

    def _on_close_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer a close frame with its code (RFC 6455 §5.5.1); one without a code has an answer without one."""
        code = cast(int, frame.get_close_code())
        if code in _NOT_SENT or (frame.payload_size and not 1000 <= code < 5000):
            self._fail(WSCloseCode.PROTOCOL_ERROR, f"close code {code} is not allowed")
        self._detach(code or NO_STATUS)
        if code:
            transport.send_close(frame.get_close_code())
        else:
            transport.send(WSMsgType.CLOSE, None)  # `send_close` would send the code 0
        transport.disconnect()
        self._abort_later()

    def _on_fragment(self, frame: WSFrame, kind: WSMsgType) -> None:
        assert self.connection is not None
        if (kind == _CONTINUATION) != (self._fragments is not None):
            self._fail(WSCloseCode.PROTOCOL_ERROR, "a fragment out of order")
        if self._fragments is None:
            self._fragments, self._fragments_type = bytearray(), kind
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > self._max_message_bytes:
            self._fail(WSCloseCode.MESSAGE_TOO_BIG, "the message is too big")
        if not frame.fin:
            return
        payload, self._fragments = bytes(self._fragments), None
        if self._fragments_type == _BINARY:
            self._protocol.coalescer.put(self.connection, payload)
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self._fail(WSCloseCode.INVALID_TEXT, "a text message is not UTF-8")
        self._protocol.coalescer.put(self.connection, text)

    def _fail(self, code: WSCloseCode, reason: str) -> NoReturn:
        """Close the WebSocket after a protocol violation; the connection releases its slots at once."""
        self._detach(NO_STATUS)
        self._abort_later()
        raise WSProtocolError(code, reason)

    def _abort_later(self) -> None:
        """Limit the time to close: a client that does not read would keep the socket and its send buffer."""
        if self._abort_timer is None:
            self._abort_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_SECONDS, self.abort)

    def _throttle(self, seconds: float) -> None:
        if self._throttle_timer is None:
            self._throttle_timer = asyncio.get_running_loop().call_later(seconds, self._end_throttling)
            self._update_reading()

    def _end_throttling(self) -> None:
        self._throttle_timer = None
        self._update_reading()

    def _update_reading(self) -> None:
        transport = self._protocol.transport.underlying_transport
        if self._paused or self._throttle_timer is not None:
            transport.pause_reading()
        elif not transport.is_closing():
            transport.resume_reading()

    def _detach(self, code: int) -> None:
        self._protocol.coalescer.flush()  # messages that were read before the end
        super()._detach(code)


class WebSocketProtocol(WSProtocol):  # type: ignore[misc]
    """The protocol class for uvicorn's `ws` setting; the arguments after `sockets` are uvicorn's."""

    def __init__(
        self,
        service: Service,
        endpoints: Mapping[str, MakeProtocol],
        coalescer: MessageCoalescer,
        sockets: SocketLimit,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(
            None,
            None,
            False,  # is_client_side
            self._on_upgrade,
            _picows_logger,
            True,  # disconnect_on_exception
            HANDSHAKE_TIMEOUT_SECONDS,
            False,  # enable_auto_ping: while reading is paused, pongs wait behind the audio
            20.0,
            20.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: it ignores whether the client reads
            config.ws_max_size,
            None,
            READ_BUFFER_BYTES,
        )
        self.coalescer = coalescer
        self._service = service
        self._sockets = sockets
        self._endpoints = endpoints
        self._open_connections = server_state.connections
        self._websocket = PicowsTransport(self, config.ws_max_size)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open_connections.add(cast(Any, self))
        self._sockets.replace(cast(asyncio.Transport, transport).get_protocol(), self)
        super().connection_made(LocalTransport(transport) if is_local(transport) else transport)

    def get_buffer(self, size_hint: int) -> memoryview:
        return cast(memoryview, super().get_buffer(size_hint))[:MAX_READ_BYTES]

    def data_received(self, data: bytes) -> None:
        """Take the opening request, which uvicorn has read; later data is read into the buffer."""
        self.get_buffer(len(data))[: len(data)] = data
        self.buffer_updated(len(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._open_connections.discard(cast(Any, self))
        self._sockets.remove(self)
        super().connection_lost(error)
        self._websocket.gone()

    def shutdown(self) -> None:
        """Close a WebSocket that is still open when uvicorn stops, after `Service.drain`."""
        self.transport.send_close(WSCloseCode.SERVICE_RESTART)

    def _on_upgrade(self, upgrade: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Return the response to an opening request."""
        try:
            return self._open(upgrade)
        except Exception:
            logger.exception("internal error")
            return error_response(500, None, {})

    def _open(self, upgrade: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        opening = parse_opening(upgrade, self._endpoints, self._service.config.server.root_path)
        if isinstance(opening, WSUpgradeResponseWithListener):
            return opening
        make_protocol, request = opening
        self.coalescer.flush()  # a request to resume a stream must find everything that the old connection has received
        connection, answer = open_connection(self._websocket, self._service, make_protocol, request)
        if isinstance(answer, Refusal):
            return error_response(answer.status, answer.body, answer.headers)
        self._websocket.connection = connection
        subprotocol = {} if answer.subprotocol is None else {"Sec-WebSocket-Protocol": answer.subprotocol}
        response = WSUpgradeResponse.create_101_response({**answer.headers, **subprotocol})
        return WSUpgradeResponseWithListener(response, self._websocket)


def protocol_class(service: Service, endpoints: Mapping[str, MakeProtocol], sockets: SocketLimit) -> Any:
    """Return the value for uvicorn's `ws` setting; `endpoints` maps paths to protocols."""
    coalescer = MessageCoalescer(asyncio.get_running_loop())
    return functools.partial(WebSocketProtocol, service, endpoints, coalescer, sockets)

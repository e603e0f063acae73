"""One Wyoming client: what it asks for, and the utterances that it sends one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import lru_cache
from typing import Any, Final

from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info
from wyoming.ping import Pong

from tympan.errors import FrameError, SlowReaderError, TympanError
from tympan.protocols.base import ServerInfo
from tympan.protocols.errors import public_error
from tympan.server.listen.socket_limit import SocketLimit
from tympan.server.service import Service
from tympan.server.sessions.stream_timer import StreamTimer
from tympan.server.wyoming.events import pack_event, read_event
from tympan.server.wyoming.utterance import Utterance, audio_format
from tympan.version import version

LAST_WORDS_SECONDS: Final = 10.0  # for a client to read its last events before the socket is cut
UNREAD_BYTES: Final = 1 << 20


class WyomingConnection:
    """Call `run`, which returns when the connection has ended.

    A slot is taken at `audio-start` and free again after the transcript, so clients may stay connected in between.
    """

    def __init__(
        self, service: Service, sockets: SocketLimit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._service = service
        self._sockets = sockets
        self._reader = reader
        self._writer = writer
        self._limits = service.config.limits
        self._loop = asyncio.get_running_loop()
        self._timer = self._new_timer()
        self._utterance: Utterance | None = None
        self._utterance_over = asyncio.Event()
        self._waiting = False  # whether the socket is not read at the moment
        self._closed_at: float | None = None

    def _new_timer(self) -> StreamTimer:
        return StreamTimer(self._limits, 1.0, self._loop.time())

    @property
    def address(self) -> str:
        """The client's IP address."""
        peer = self._writer.get_extra_info("peername")
        return peer[0] if peer else ""

    def evict(self) -> None:
        """Close the socket at once."""
        self._writer.transport.abort()

    async def run(self) -> None:
        """Handle events until the client has disconnected, has made an error, or the server stops."""
        self._sockets.add(self)
        self._sockets.set_idle(self, idle=True)
        self._service.connections.add(self)
        try:
            if self._service.connections.draining:
                self._close()
            while (event := await read_event(self._reader, self._limits.message_bytes)) and self._closed_at is None:
                await self._handle(event)
                await asyncio.sleep(0)  # reading does not yield while events are buffered
        except TympanError as error:
            self._fail(error)
        finally:
            if self._utterance is not None:
                self._utterance.close()
            self._writer.close()
            self._service.connections.remove(self)
            self._sockets.remove(self)

    async def _handle(self, event: Event) -> None:
        self._timer.received = True
        match event.type:
            case "describe":
                self._write(_packed_info(self._service.server_info))
            case "ping":
                self._send(Pong(event.data.get("text")).event())
            case "transcribe":
                self._service.server_info.check_model(_text(event.data, "name"))
            case "audio-start":
                self._open_utterance(event.data)
            case "audio-chunk":
                await self._wait(self._open_utterance(event.data).push(audio_format(event.data), event.payload or b""))
            case "audio-stop" if self._utterance is not None:
                await self._wait(self._finish(self._utterance))

    def _open_utterance(self, data: Mapping[str, Any]) -> Utterance:
        if self._utterance is None:
            self._utterance = Utterance(self._service, audio_format(data), self._send, self._on_utterance_end)
            self._utterance_over.clear()
            self._timer = self._new_timer()
            self._sockets.set_idle(self, idle=False)
        return self._utterance

    async def _finish(self, utterance: Utterance) -> None:
        await utterance.finish()
        await self._utterance_over.wait()

    async def _wait(self, pending: Coroutine[Any, Any, None]) -> None:
        self._waiting = True
        try:
            await pending
        finally:
            self._waiting = False

    def _on_utterance_end(self, error: Exception | None) -> None:
        self._utterance = None
        self._utterance_over.set()
        self._timer = self._new_timer()
        self._sockets.set_idle(self, idle=True)
        if error is not None:
            self._fail(error)
        elif self._service.connections.draining:
            self._close()

    def _send(self, event: Event) -> None:
        self._write(pack_event(event))

    def _write(self, packed: bytes) -> None:
        if self._closed_at is not None:
            return
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            self._close(SlowReaderError("the events were not read; read them while you send"))
            self.evict()
        else:
            self._writer.write(packed)

    def _fail(self, error: Exception) -> None:
        code, text = public_error(error)
        self._send(Error(text, code).event())
        self._close(error)

    def _close(self, error: Exception | None = None) -> None:
        if self._closed_at is None:
            self._closed_at = self._loop.time()
            if self._utterance is not None and error is not None:
                self._utterance.fail(error)
            self._utterance_over.set()
            self._writer.close()

    # --- calls of the server -------------------------------------------------------------------------------------

    def check_limits(self, now: float) -> None:
        """End the connection if it is over a limit; `now` is the event loop's time."""
        session = None
        if self._utterance is not None:
            session = self._utterance.session
            self._utterance.check_limits(now)
        owes_answer = self._waiting or (session is not None and session.is_behind)
        late = self._timer.check(now, session, owes_answer=owes_answer)
        if self._closed_at is not None:
            if now - self._closed_at > LAST_WORDS_SECONDS:
                self.evict()
        elif late is not None:
            self._fail(late)

    def restart(self) -> None:
        """Send the words of everything received, and close."""
        if self._utterance is not None:
            self._utterance.session.restart()
        else:
            self._close()


@lru_cache(maxsize=1)
def _packed_info(info: ServerInfo) -> bytes:
    """Return the packed answer to `describe`, which takes 3 ms to make."""
    model = AsrModel(info.model, Attribution(info.engine, ""), True, info.model, None, list(info.languages))
    by = Attribution("Tympan", "")
    program = AsrProgram("tympan", by, True, "Tympan", version(), [model], supports_transcript_streaming=True)
    return pack_event(Info(asr=[program]).event())


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise FrameError(f"invalid {name} {value!r:.40}: expected a string")
    return value

"""One utterance of a Wyoming client: a session from `audio-start` to the transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.event import Event as WyomingEvent

from tympan.audio.format import HIGHEST_RATE, LOWEST_RATE
from tympan.errors import ParameterError, TympanError
from tympan.messages import Audio, AudioFormat, Command, Event, Finish, SetFormat, Word
from tympan.protocols.errors import close_code
from tympan.server.routes.responses import opening_request
from tympan.server.service import Service
from tympan.server.sessions.session_log import SessionLog
from tympan.server.transport import ABNORMAL_CLOSURE
from tympan.transcript.joining import text_after

NAME: Final = "wyoming"
ENCODINGS: Final = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}
"""Encoding of the samples by their `width` in bytes."""


class Utterance:
    """Holds an engine slot until its end; words are sent as they are released.

    Args:
        service: The server.
        audio_format: The format that the client declares.
        send: Sends an event to the client.
        on_end: Called once, after the last event or with the error that ended the utterance.

    Raises:
        RestartingError: The server is starting or shutting down.
        CapacityError: All slots are in use.
        QuotaError: The clients without a key have reached one of their limits.
        EngineError: The engine is not running.
    """

    def __init__(
        self,
        service: Service,
        audio_format: AudioFormat,
        send: Callable[[WyomingEvent], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        request = opening_request("", {}, {})
        self._format = audio_format
        self._send = send
        self._report_end = on_end
        self._texts: list[str] = []  # of the words, with the spaces before them
        self._room = asyncio.Event()
        self._log = SessionLog(service, request, NAME)
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.finishing = False
        try:
            service.admission.check_available()
            self.session, self._usage = service.admission.open_session(
                service.keys.shared_account, request.id, audio_format, self, wants_vad=bool(service.observers)
            )
        except TympanError as error:
            self._log.refused(error)
            raise
        observers = service.observers.begin(request, NAME, audio_format, service.engine.info)
        self.session.observers += observers
        self._log.opened(self.session, observers)
        service.metrics.connected()
        self.session.start()

    async def push(self, audio_format: AudioFormat, audio: bytes) -> None:
        """Transcribe audio; waits while the engine is too far behind."""
        if audio_format != self._format:
            self._format = audio_format
            await self._execute(SetFormat(audio_format))
        await self._execute(Audio(audio))

    async def finish(self) -> None:
        """Send the last words and the transcript; `on_end` follows."""
        self.finishing = True
        await self._execute(Finish())

    async def _execute(self, command: Command) -> None:
        self._room.clear()
        if not (self._closed or self.session.execute(command)):
            await self._room.wait()

    def on_event(self, event: Event, channel: int) -> None:
        """Send the text of a word."""
        if isinstance(event, Word):
            if not self._texts:
                self._send(TranscriptStart().event())
            self._texts.append(text_after(bool(self._texts), event))
            self._send(TranscriptChunk(self._texts[-1]).event())

    def on_room(self) -> None:
        """Continue to read the socket."""
        self._room.set()

    def on_end(self, error: Exception | None) -> None:
        """Send the transcript, but not after an error: part of a command must not be carried out as a whole one."""
        if self._closed:
            return
        if error is None:
            if not self._texts:
                self._send(TranscriptStart().event())
            self._send(Transcript("".join(self._texts)).event())
            self._send(TranscriptStop().event())
        else:
            self._log.failed(error)
        self.close(close_code(error))
        self._report_end(error)

    def check_limits(self, now: float) -> None:
        """End the session if its account is over a limit; `now` is the event loop's time."""
        if (error := self._usage.spent(now)) is not None:
            self.session.stop(error)

    def fail(self, error: Exception) -> None:
        """End the utterance because of an error; `on_end` does not follow."""
        if not self._closed:
            self._log.failed(error)
            self.close(close_code(error))

    def close(self, code: int = ABNORMAL_CLOSURE) -> None:
        """Release the slot. May be called at any time and more than once."""
        if self._closed:
            return
        self._closed = True
        self._room.set()
        self.session.close()
        self._usage.end(self._loop.time())
        self._log.closed(str(code))


def audio_format(data: Mapping[str, Any]) -> AudioFormat:
    """Return the format that `audio-start` or `audio-chunk` declares; channels are mixed.

    Raises:
        ParameterError: A value is missing or invalid.
    """
    rate, width, channels = (data.get(name) for name in ("rate", "width", "channels"))
    if not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ParameterError(f"invalid rate {rate!r:.40}: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    if not isinstance(width, int) or width not in ENCODINGS:
        raise ParameterError(f"invalid width {width!r:.40}: expected 1, 2, 3 or 4 bytes per sample")
    if channels not in (1, 2):
        raise ParameterError(f"invalid channels {channels!r:.40}: expected 1 or 2")
    return AudioFormat(ENCODINGS[width], rate, int(channels), mixed=True)

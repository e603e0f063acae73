"""A session with onlookers, for recording and tracing. Without any, a plain `Session` serves, and pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tympan.audio.decoder import Decoder
from tympan.config import Config
from tympan.engine.base import Engine
from tympan.messages import AudioFormat, Command, Event, Flush, Pcm
from tympan.session.session import EmitOn, Ended, Session


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended."""

    code: str
    """The WebSocket's close code; of a file in a request `ok`, `failed` or `cancelled`."""
    error: str
    """The error's stable name; empty after a good end."""
    seconds: float
    """From its opening, on the wall."""
    audio_seconds: float
    words: int


class Observer:
    """Sees all that goes through one session, on the event loop. Must not block, and must not raise."""

    def heard(self, samples: Pcm) -> None:
        """Audio on its way to the engine: `[n, channels]` at the engine's rate, not to be changed."""

    def asked(self, command: Command) -> None:
        """A command on its way to the session, audio included."""

    def told(self, event: Event, channel: int) -> None:
        """An event on its way to the client's protocol, whether or not that says it."""

    def ended(self, outcome: Outcome) -> None:
        """It is over; called once."""


class ObservedSession(Session):
    """A session that shows everything to its `observers` first, `Vad` too, whether or not the client wants it."""

    def __init__(
        self,
        id: str,
        engine: Engine,
        audio_format: AudioFormat,
        config: Config,
        emit: EmitOn,
        room: Callable[[], None],
        ended: Ended,
        observers: Sequence[Observer],
        *,
        live: bool,
    ) -> None:
        self._observers = observers

        def tell(event: Event, channel: int) -> None:
            for observer in observers:
                observer.told(event, channel)
            emit(event, channel)

        super().__init__(id, engine, audio_format, config, tell, room, ended, wants_vad=True, live=live)

    def execute(self, command: Command) -> bool:
        self._show(command)
        return super().execute(command)

    def flush(self, marker: int) -> None:
        self._show(Flush(marker))
        super().flush(marker)

    def _show(self, command: Command) -> None:
        for observer in self._observers:
            observer.asked(command)

    def _open_decoder(self, audio_format: AudioFormat) -> Decoder:
        return _Overheard(super()._open_decoder(audio_format), self._observers)


class _Overheard:
    """A decoder whose samples are shown as they are drawn."""

    def __init__(self, decoder: Decoder, observers: Sequence[Observer]) -> None:
        self._decoder = decoder
        self._observers = observers

    def decode(self, data: bytes) -> Iterator[Pcm]:
        return self._overheard(self._decoder.decode(data))

    def flush(self) -> Iterator[Pcm]:
        return self._overheard(self._decoder.flush())

    def finish(self) -> Iterator[Pcm]:
        return self._overheard(self._decoder.finish())

    def close(self) -> None:
        self._decoder.close()

    def _overheard(self, blocks: Iterator[Pcm]) -> Iterator[Pcm]:
        for block in blocks:
            for observer in self._observers:
                observer.heard(block)
            yield block

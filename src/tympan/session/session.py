"""A client's conversation with the engine: commands in, events out, until it is complete or something ends it.

It owns no task. Where the engine has no room for more audio, what is left of a command waits, and so do those that come
after it; the engine's progress moves them on.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator

from tympan.audio.decoder import Decoder, open_decoder
from tympan.config import Config
from tympan.engine.base import Engine
from tympan.errors import RestartingError, TympanError
from tympan.messages import (
    Audio,
    AudioFormat,
    Command,
    Complete,
    Event,
    Finish,
    Flush,
    Flushed,
    KeepAlive,
    Pcm,
    Ready,
    Reset,
    Restarting,
    SetFormat,
)
from tympan.session.channel import Channel

logger = logging.getLogger(__name__)

EmitOn = Callable[[Event, int], None]
Ended = Callable[[Exception | None], None]


class Session:
    """Made with its slots taken: raises `CapacityError` when the engine has too few, and then holds none.

    `emit(event, channel)` gets every event; `room()` is called when commands are welcome again after `execute` has
    said that they are not; `ended(error)` is called exactly once, with `None` after `Complete`, unless `close` came
    first. `Vad`, of which there is one for every frame, is made only where it is wanted.
    """

    def __init__(
        self,
        id: str,
        engine: Engine,
        audio_format: AudioFormat,
        config: Config,
        emit: EmitOn,
        room: Callable[[], None],
        ended: Ended,
        *,
        wants_vad: bool,
        live: bool = True,
    ) -> None:
        self.id = id
        self._live = live
        self._engine = engine
        self._turns = config.turns
        self._high_water_frames = config.limits.backlog_seconds / engine.info.frame_seconds
        self._emit = emit
        self._room = room
        self._ended = ended
        self.wants_vad = wants_vad
        self._over = False
        self._finishing = False
        self._end: TympanError | None = None
        self._forgotten_seconds = 0.0
        self.held = False
        self._waiting: deque[Command] = deque()
        self._rest: Iterator[Pcm] = iter(())
        self._then: Callable[[], None] | None = None
        self._flushes: Counter[int] = Counter()
        self._format = audio_format
        self._decoder = self._open_decoder(audio_format)
        self._channels: list[Channel] = []
        try:
            self._open_channels()
        except BaseException:
            self.close()
            raise
        self._running = len(self._channels)

    @property
    def received_seconds(self) -> float:
        """The session's clock: seconds of audio received, of the channel that has most."""
        return max((channel.received_seconds for channel in self._channels), default=0.0)

    @property
    def channels(self) -> int:
        return len(self._channels)

    @property
    def heard_seconds(self) -> float:
        """Seconds of audio of all channels together, also of those that a `Reset` has made forget theirs."""
        return self._forgotten_seconds + sum(channel.received_seconds for channel in self._channels)

    @property
    def words(self) -> int:
        return sum(channel.words for channel in self._channels)

    def start(self) -> None:
        """Say hello."""
        info = self._engine.info
        self._emit(
            Ready(self.id, info.model, info.engine, info.sample_rate, info.delay_seconds, info.pause_horizons), 0
        )

    def execute(self, command: Command) -> bool:
        """Carry out a command, after those before it. False if it waits for room; the next one should, too."""
        if self.held:
            self._waiting.append(command)
        elif not self._over:
            try:
                self._carry_out(command)
            except Exception as error:
                self._fail(error)
        return not self.held

    def restart(self) -> None:
        """The server goes down: finish what was received, and end with `RestartingError` so that the client
        reconnects.
        """
        if not (self._over or self._finishing or self._end is not None or Finish() in self._waiting):
            self._end = RestartingError("the server is restarting; reconnect and go on")
            self.execute(Finish())

    def stop(self, error: TympanError) -> None:
        """Finish what was heard so far, and end with `error`. What waits for room is not heard any more."""
        everything_heard = self._finishing and not self.held
        if not (self._over or everything_heard):
            self._end = error
            self.held = False
            self._waiting.clear()
            self._finishing = True
            self._finish()

    def close(self) -> None:
        """Give the slots back now. No further events, and `ended` is not called."""
        self._over = True
        self.held = False
        self._waiting.clear()
        for channel in self._channels:
            channel.close()
        self._decoder.close()

    def _carry_out(self, command: Command) -> None:
        if self._finishing:
            return
        match command:
            case Audio():
                self._hear(self._decoder.decode(command.data), None)
            case SetFormat():
                self._hear(self._decoder.finish(), functools.partial(self._set_format, command.audio_format))
            case Reset():
                self._reset()
            case Flush():
                self._hear(self._decoder.flush(), functools.partial(self._flush, command.marker, to_the_end=True))
            case Finish():
                self._finishing = True
                self._hear(self._decoder.finish(), self._finish)
            case KeepAlive():
                pass

    def _hear(self, blocks: Iterator[Pcm], then: Callable[[], None] | None) -> None:
        """`blocks` are `[n, channels]`. Above the high-water mark the rest waits for the engine."""
        for block in blocks:
            while block.shape[1] < len(self._channels):
                self._drop_channel()
            full = False
            for channel in self._channels:
                channel.hear(block[:, channel.number])
                full = full or channel.backlog_frames > self._high_water_frames
            if full:
                self.held, self._rest, self._then = not self._over, blocks, then
                return
        if then is not None and not self._over:
            then()

    def _go_on(self) -> None:
        """There is room again."""
        self.held = False
        try:
            self._hear(self._rest, self._then)
            while self._waiting and not self.held:
                self._carry_out(self._waiting.popleft())
        except Exception as error:
            self._fail(error)
        if not (self.held or self._over):
            self._room()

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, TympanError):
            logger.exception("%s: internal error", self.id, extra={"session": self.id})
        self.close()
        self._ended(error)

    def flush(self, marker: int) -> None:
        """Flush at once, ahead of commands that wait: for a pause, which is over by the time they are done."""
        if not (self._over or self._finishing):
            self._flush(marker, to_the_end=False)

    def _flush(self, marker: int, *, to_the_end: bool) -> None:
        self._flushes[marker] += len(self._channels)
        for channel in self._channels:
            channel.flush(marker, to_the_end=to_the_end)

    def _set_format(self, audio_format: AudioFormat) -> None:
        """Once all is heard that the decoder had kept for bytes that will not come."""
        assert audio_format.streams == len(self._channels)
        self._decoder.close()
        self._format = audio_format
        self._decoder = self._open_decoder(audio_format)
        if not self.received_seconds:
            for channel in self._channels:
                channel.declare(audio_format)

    def _reset(self) -> None:
        """New slots in place of the old: nothing comes between, so there are as many as before."""
        self._forgotten_seconds = self.heard_seconds
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self._flushes.clear()
        self._open_channels()

    def _open_decoder(self, audio_format: AudioFormat) -> Decoder:
        return open_decoder(audio_format, self._engine.info.sample_rate)

    def _open_channels(self) -> None:
        for number in range(self._format.streams):
            self._channels.append(Channel(self._engine, self._format, self._turns, self, number, live=self._live))

    def _drop_channel(self) -> None:
        """There are fewer in the audio than there might have been."""
        assert self._format.or_fewer
        self._channels.pop().close()
        self._running -= 1

    def _finish(self) -> None:
        if isinstance(self._end, RestartingError):
            self._emit(Restarting(), 0)
        for channel in self._channels:
            channel.finish()

    def on_event(self, channel: Channel, event: Event) -> None:
        if not self._over:
            self._emit(event, channel.number)

    def on_progress(self) -> None:
        if all(channel.backlog_frames <= self._high_water_frames for channel in self._channels):
            self._go_on()

    def on_flushed(self, marker: int) -> None:
        """A flush is answered once, when every channel has done it."""
        self._flushes[marker] -= 1
        if self._flushes[marker] % len(self._channels) == 0 and not self._over:
            self._emit(Flushed(marker), 0)

    def on_end(self, error: Exception | None) -> None:
        self._running -= 1
        if self._over or (error is None and self._running > 0):
            return
        if error is None:
            self._emit(Complete(self.received_seconds, self.words), 0)
            error = self._end
        self.close()
        self._ended(error)

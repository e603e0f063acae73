"""One client's conversation with the engine: commands in, events out.

A session owns no task. Where a channel's backlog is above its limit, the rest of the audio command waits together with
the commands after it, and the engine's progress resumes them.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
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
    Pcm,
    Reset,
    Restarting,
    SetFormat,
)
from tympan.session.channel import Channel
from tympan.session.flush_answers import FlushAnswers
from tympan.session.listener import Observer, SessionListener

logger = logging.getLogger(__name__)

Blocks = Iterator[Pcm | None]
Then = Callable[[], None] | None


class Session:
    """Holds one engine slot per channel from its creation until its end or `close`.

    Args:
        id: Identifies the session in logs and in `Ready`.
        engine: The engine that transcribes the audio.
        audio_format: The format of the audio until a `SetFormat`.
        config: The turn settings and the limit of the backlog.
        listener: Receives the events; `on_end` exactly once, unless `close` comes first.
        wants_vad: Whether to report `Vad`, of which there is one per frame.
        live: Whether the audio arrives in real time; a file yields to live streams.

    Attributes:
        observers: See all audio, commands and events; add them before `start`.

    Raises:
        CapacityError: The engine has fewer free slots than the session needs; none is taken.
    """

    def __init__(
        self,
        id: str,
        engine: Engine,
        audio_format: AudioFormat,
        config: Config,
        listener: SessionListener,
        *,
        wants_vad: bool,
        live: bool = True,
    ) -> None:
        self.id = id
        self.observers: list[Observer] = []
        self._engine, self._listener, self._format = engine, listener, audio_format
        self._open_decoder: Callable[[AudioFormat], Decoder] = lambda audio_format: open_decoder(
            audio_format, engine.info.sample_rate, self.on_room, self.on_event, live=live
        )
        self._decoder = self._open_decoder(audio_format)
        most_frames = config.limits.backlog_seconds / engine.info.frame_seconds
        self._open_channel = functools.partial(
            Channel, engine, turns=config.turns, listener=self, most_frames=most_frames, wants_vad=wants_vad, live=live
        )
        self._channels: list[Channel] = []
        self._over = self._finishing = self._held = False  # held: commands wait for room
        self._end: TympanError | None = None  # reported after the last word
        self._waiting: deque[Command | tuple[Blocks, Then]] = deque()  # first the rest of a command that did not fit
        self._flushes = FlushAnswers()
        self._seconds_before_reset = 0.0
        try:
            self._open_channels()
        except BaseException:
            self.close()
            raise
        self._running = len(self._channels)

    @property
    def received_seconds(self) -> float:
        """The session's clock: seconds of audio received by the channel that has received most."""
        return max((channel.received_seconds for channel in self._channels), default=0.0)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self._channels)

    @property
    def heard_seconds(self) -> float:
        """Seconds of audio of all channels together, including those before a `Reset`."""
        return self._seconds_before_reset + sum(channel.received_seconds for channel in self._channels)

    @property
    def words(self) -> int:
        """Number of words of all channels together."""
        return sum(channel.words for channel in self._channels)

    @property
    def is_behind(self) -> bool:
        """Whether audio, a flush or the end waits for the engine, so that the client may wait for an answer."""
        waits = self._held or self._finishing or self._flushes.is_pending
        return waits or any(channel.has_backlog for channel in self._channels)

    def start(self) -> None:
        """Report `Ready`."""
        self.on_event(self._engine.info.ready(self.id), 0)

    def execute(self, command: Command) -> bool:
        """Execute a command after those before it.

        Returns:
            False if commands wait for room: the caller should send no more until `on_room`.
        """
        for observer in self.observers:
            observer.on_command(command)
        if self._held:
            self._waiting.append(command)
        elif not self._over:
            try:
                self._execute(command)
            except Exception as error:
                self._fail(error)
        return not self._held

    def flush(self, marker: int) -> None:
        """Flush ahead of the commands that wait: for an endpoint, which lies in audio already transcribed."""
        for observer in self.observers:
            observer.on_command(Flush(marker))
        if not (self._over or self._finishing):
            self._flush(marker, with_partial_frame=False)

    def restart(self) -> None:
        """Transcribe everything received, then end with `RestartingError`: the server is shutting down."""
        if not (self._over or self._finishing or self._end is not None or Finish() in self._waiting):
            self._end = RestartingError("the server is restarting; reconnect and continue")
            self.execute(Finish())

    def stop(self, error: TympanError) -> None:
        """Transcribe the audio sent to the engine so far, discard what waits for room, then end with `error`."""
        if not self._over and (self._held or not self._finishing):
            self._end = error
            self._held, self._finishing = False, True
            self._waiting.clear()
            self._finish()

    def close(self) -> None:
        """Release the slots now. No further events follow, and no `on_end`."""
        self._over, self._held = True, False
        self._waiting.clear()
        for channel in self._channels:
            channel.close()
        self._decoder.close()

    def _execute(self, command: Command) -> None:
        if self._finishing:
            return
        match command:
            case Audio():
                self._push(self._decoder.decode(command.data), None)
            case SetFormat():
                self._push(self._decoder.finish(), functools.partial(self._set_format, command.audio_format))
            case Reset():
                self._reset()
            case Flush():
                flush = functools.partial(self._flush, command.marker, with_partial_frame=True)
                self._push(self._decoder.flush(), flush)
            case Finish():
                self._finishing = True
                self._push(self._decoder.finish(), self._finish)

    def _push(self, blocks: Blocks, then: Then) -> None:
        """Send `blocks`, each `[n, channels]`, then call `then`.

        Both wait once a channel is full, and where the decoder yields `None` until it calls `on_room`.
        """
        for block in blocks:
            if block is None or self._push_block(block):
                if not self._over:
                    self._held = True
                    self._waiting.appendleft((blocks, then))
                return
        if then is not None and not self._over:
            then()

    def _push_block(self, block: Pcm) -> bool:
        """Send a block `[n, channels]`, and return whether a channel is full."""
        for observer in self.observers:
            observer.on_audio(block)
        while block.shape[1] < len(self._channels):
            self._drop_channel()
        for channel in self._channels:
            channel.push(block[:, channel.number])
        return any(channel.is_full for channel in self._channels)

    def _resume(self) -> None:
        self._held = False
        try:
            while self._waiting and not self._held:
                waiting = self._waiting.popleft()
                if isinstance(waiting, tuple):
                    self._push(*waiting)
                else:
                    self._execute(waiting)
        except Exception as error:
            self._fail(error)
        if not (self._held or self._over):
            self._listener.on_room()

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, TympanError):
            logger.exception("%s: internal error", self.id, extra={"session": self.id})
        self.close()
        self._listener.on_end(error)

    def _flush(self, marker: int, *, with_partial_frame: bool) -> None:
        self._flushes.add(marker, len(self._channels))
        for channel in self._channels:
            channel.flush(marker, with_partial_frame=with_partial_frame)
        self._held = self._held or self._flushes.is_full

    def _set_format(self, audio_format: AudioFormat) -> None:
        assert audio_format.streams == len(self._channels)
        self._decoder.close()
        self._format = audio_format
        self._decoder = self._open_decoder(audio_format)
        if not self.received_seconds:
            for channel in self._channels:
                channel.set_format(audio_format)

    def _reset(self) -> None:
        """Replace every slot by a new one; nothing runs in between, so as many are free as before."""
        self._seconds_before_reset = self.heard_seconds
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self._flushes.clear()
        self._open_channels()

    def _open_channels(self) -> None:
        for number in range(self._format.streams):
            self._channels.append(self._open_channel(audio_format=self._format, number=number))

    def _drop_channel(self) -> None:
        """Release the last channel: the audio has fewer than were reserved for it."""
        assert self._format.or_fewer
        self._channels.pop().close()
        self._running -= 1

    def _finish(self) -> None:
        if isinstance(self._end, RestartingError):
            self.on_event(Restarting(), 0)
        for channel in self._channels:
            channel.finish()

    def on_event(self, event: Event, channel: int = 0) -> None:
        """Forward an event of a channel, or of the decoder; a flush is answered once every channel has answered it."""
        if isinstance(event, Flushed):
            if not self._flushes.answer(event.marker):
                return
            channel = 0
        if not self._over:
            for observer in self.observers:
                observer.on_event(event, channel)
            self._listener.on_event(event, channel)
        if isinstance(event, Flushed):
            self.on_room()

    def on_room(self) -> None:
        """Resume the commands that wait once no channel is full any longer and flushes have been answered."""
        if self._held and not (self._flushes.is_full or any(channel.is_full for channel in self._channels)):
            self._resume()

    def on_end(self, error: Exception | None) -> None:
        """End the session after its last channel, or at once if a channel failed."""
        self._running -= 1
        if self._over or (error is None and self._running > 0):
            return
        if error is None:
            self.on_event(Complete(self.received_seconds, self.words), 0)
            error = self._end
        self.close()
        self._listener.on_end(error)

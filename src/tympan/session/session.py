"""A client's conversation with the engine: commands in, events out, until it is complete or something ends it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from tympan.audio.decoder import open_decoder
from tympan.config import Config
from tympan.engine.base import Engine
from tympan.errors import RestartingError
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
    Ready,
    Reset,
    Samples,
    SetFormat,
)
from tympan.session.channel import Channel

EmitOn = Callable[[Event, int], None]
Ended = Callable[[Exception | None], None]


class Session:
    """Made with its slots taken: raises `CapacityError` when the engine has too few, and then holds none.

    `emit(event, channel)` gets every event; `ended(error)` is called exactly once, with `None` after `Complete`,
    unless `close` came first.
    """

    def __init__(
        self, id: str, engine: Engine, audio_format: AudioFormat, config: Config, emit: EmitOn, ended: Ended
    ) -> None:
        self.id = id
        self._engine = engine
        self._turns = config.turns
        self._high_water_seconds = config.limits.backlog_seconds
        self._emit = emit
        self._ended = ended
        self._over = False
        self._finishing = False
        self._restarting = False
        self._one_at_a_time = asyncio.Lock()
        self._room = asyncio.Event()
        self._flushes: Counter[int] = Counter()
        self._format = audio_format
        self._decoder = open_decoder(audio_format, engine.info.sample_rate)
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
    def words(self) -> int:
        return sum(channel.words for channel in self._channels)

    def start(self) -> None:
        """Say hello."""
        info = self._engine.info
        self._emit(
            Ready(self.id, info.model, info.engine, info.sample_rate, info.delay_seconds, info.pause_horizons), 0
        )

    async def execute(self, command: Command) -> None:
        """Carry out one command; returns when there is room for more audio. Raises `AudioError`."""
        async with self._one_at_a_time:
            if self._over or self._finishing:
                return
            match command:
                case Audio():
                    for block in self._decoder.decode(command.data):
                        await self._hear(block)
                case SetFormat():
                    await self._set_format(command.audio_format)
                case Reset():
                    self._reset()
                case Flush():
                    self._flush(command.mark)
                case Finish():
                    await self._finish()
                case KeepAlive():
                    pass

    async def restart(self) -> None:
        """The server goes down: finish what was received, and end with `RestartingError` so that the client
        reconnects.
        """
        async with self._one_at_a_time:
            if not (self._over or self._finishing):
                self._restarting = True
                await self._finish()

    def close(self) -> None:
        """Give the slots back now. No further events, and `ended` is not called."""
        self._over = True
        self._room.set()
        for channel in self._channels:
            channel.close()
        self._decoder.close()

    async def _hear(self, block: Samples) -> None:
        """`block` is float32 `[n, channels]`; above the high-water mark this waits for the engine."""
        for number, channel in enumerate(self._channels):
            channel.hear(block[:, number])
        while not self._over and any(channel.backlog_seconds > self._high_water_seconds for channel in self._channels):
            self._room.clear()
            await self._room.wait()

    def flush(self, mark: int) -> None:
        """Flush at once, ahead of commands that wait: for a pause, which is over by the time they are done."""
        if not (self._over or self._finishing):
            self._flush(mark)

    def _flush(self, mark: int) -> None:
        self._flushes[mark] += len(self._channels)
        for channel in self._channels:
            channel.flush(mark)

    async def _set_format(self, audio_format: AudioFormat) -> None:
        assert audio_format.streams == len(self._channels)
        await self._hear_rest()
        self._decoder.close()
        self._format = audio_format
        self._decoder = open_decoder(audio_format, self._engine.info.sample_rate)
        if not self.received_seconds:
            self._reset()  # what looks for audio that cannot be right wants to know the format, too

    async def _hear_rest(self) -> None:
        """What the decoder has kept for bytes that will not come."""
        for block in self._decoder.finish():
            await self._hear(block)

    def _reset(self) -> None:
        """New slots in place of the old: nothing comes between, so there are as many as before."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self._flushes.clear()
        self._open_channels()

    def _open_channels(self) -> None:
        for _ in range(self._format.streams):
            self._channels.append(Channel(self._engine, self._format, self._turns, self))

    async def _finish(self) -> None:
        self._finishing = True
        await self._hear_rest()
        if not self._over:
            for channel in self._channels:
                channel.finish()

    def on_event(self, channel: Channel, event: Event) -> None:
        if not self._over:
            self._emit(event, self._channels.index(channel))

    def on_progress(self) -> None:
        self._room.set()

    def on_flushed(self, mark: int) -> None:
        """A flush is answered once, when every channel has done it."""
        self._flushes[mark] -= 1
        if self._flushes[mark] % len(self._channels) == 0 and not self._over:
            self._emit(Flushed(mark), 0)

    def on_end(self, error: Exception | None) -> None:
        self._running -= 1
        if self._over or (error is None and self._running > 0):
            return
        if error is None:
            self._emit(Complete(self.received_seconds, self.words), 0)
            error = RestartingError("the server is restarting; reconnect and go on") if self._restarting else None
        self.close()
        self._ended(error)

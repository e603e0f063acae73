"""A microphone as an asynchronous iterator of mono blocks.

    async with Microphone() as microphone, connect(url, sample_rate=microphone.sample_rate) as stream:
        async for event in stream.transcribe(microphone):
            ...

PortAudio delivers blocks in a separate thread, which must not wait: if the queue is full, a new block replaces the
oldest one, and the loss is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np

from tympan.errors import AudioError, MissingPackageError, missing_package
from tympan.messages import Samples

logger = logging.getLogger(__name__)

BLOCK_SECONDS: Final = 0.08
QUEUE_SECONDS: Final = 60.0
"""How much audio is queued while it is not read, for example during a reconnection."""
HIGHEST_RATE: Final = 48_000
"""The highest rate that servers accept, requested from devices with a higher default."""

BlockCallback = Callable[[Samples, int, object, object], None]
"""PortAudio's callback: samples `[n, channels]`, n, time info, status flags."""


class InputStream(Protocol):
    """The used part of `sounddevice.InputStream`."""

    @property
    def samplerate(self) -> float:
        """Sample rate in Hz."""

    def start(self) -> None:
        """Start to deliver blocks."""

    def close(self) -> None:
        """Close the device."""


OpenInput = Callable[[str | int | None, float, BlockCallback], InputStream]
"""Opens a device, given its name, the seconds per block, and the callback."""


def open_sounddevice(device: str | int | None, block_seconds: float, callback: BlockCallback) -> InputStream:
    """Open one channel of a sound card at the card's default rate.

    Raises:
        MissingPackageError: sounddevice or the PortAudio library is not installed.
        AudioError: The device does not exist or cannot be opened.
    """
    try:
        import sounddevice
    except ImportError:
        raise missing_package("the microphone", "sounddevice", "mic") from None
    except OSError:
        raise MissingPackageError(
            "the microphone needs the PortAudio library (Debian: apt install libportaudio2)"
        ) from None
    try:
        rate = min(int(sounddevice.query_devices(device, "input")["default_samplerate"]), HIGHEST_RATE)
        opened: InputStream = sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(rate * block_seconds),
            device=device,
            channels=1,
            dtype="float32",
            callback=callback,
        )
        return opened
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"the microphone cannot be opened: {error}") from None


class Microphone:
    """Yields blocks of float32 samples `[n]` at `sample_rate`, from entering until `stop`.

    Args:
        device: Number or part of the name, as listed by `python -m sounddevice`; by default the system's.
        block_seconds: Duration of a block.
        open_input: Opens the device.
    """

    def __init__(
        self,
        device: str | int | None = None,
        *,
        block_seconds: float = BLOCK_SECONDS,
        open_input: OpenInput = open_sounddevice,
    ) -> None:
        self._device = device
        self._block_seconds = block_seconds
        self._open_input = open_input
        self._blocks: deque[Samples] = deque(maxlen=max(1, round(QUEUE_SECONDS / block_seconds)))
        self._changed = asyncio.Event()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._input: InputStream | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._input = self._open_input(self._device, self._block_seconds, self._on_block)
        self._input.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def sample_rate(self) -> int:
        """Sample rate of the device in Hz."""
        assert self._input is not None, "use the microphone inside `async with`"
        return round(self._input.samplerate)

    def stop(self) -> None:
        """Close the device. Queued blocks can still be read. May be called more than once."""
        if self._input is not None and not self._stopped:
            self._input.close()
        self._stopped = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Samples:
        while not self._blocks:
            if self._stopped:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._blocks.popleft()

    def _on_block(self, block: Samples, frames: int, clock: object, flags: object) -> None:
        """Queue a copy, since PortAudio reuses the block's memory; called in its thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._queue, np.array(block[:, 0], dtype=np.float32))

    def _queue(self, block: Samples) -> None:
        if len(self._blocks) == self._blocks.maxlen:
            logger.warning("the microphone's audio is not read: %.2f s are lost", self._block_seconds)
        self._blocks.append(block)
        self._changed.set()

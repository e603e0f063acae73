"""Audio and commands that the server has not acknowledged yet, in order, so that they can be sent again.

Positions are bytes since the beginning of the stream. `resume` continues a session on a new connection and sends what
did not arrive on the old one. `rewind` starts a new session: everything kept is sent again, and the session's clock
begins at the first byte kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tympan.client import wire

FRAME_BYTES: Final = 1 << 16
"""The largest audio message: far below the server's limit, and small enough to be read in steps."""

IN_FLIGHT_SECONDS: Final = 10.0
"""How much untranscribed audio may be in flight. More would fill the network's buffers with minutes of audio, behind
which pings wait until the connection is taken for dead."""

CONTAINER_BYTES: Final = 1 << 24
"""How much of a container is kept for a lost connection: more than is in flight. Its bytes do not indicate a time, so
it is unknown how many have been transcribed."""

WIRE_ROUNDING_SECONDS: Final = 0.0005
"""Servers round times to the millisecond; audio at a rounded time is sent twice rather than lost."""


@dataclass(slots=True)
class _Marker:
    """A flush that has not been answered.

    Attributes:
        id: The marker of the flush.
        position: The flush follows the byte at this position.
        sent: Whether the current connection has sent it.
        number: Its number among the flushes of the session, from 0.
    """

    id: int
    position: int
    sent: bool = False
    number: int = 0


class SendBuffer:
    """Audio, flushes and the end of a stream, with a cursor for what the current connection has sent."""

    def __init__(self, audio: wire.AudioFormat) -> None:
        self._audio = audio
        self._kept = bytearray()
        self._start = 0
        self._cursor = 0
        self._base = 0
        self._transcribed = 0
        self._markers: list[_Marker] = []
        self._flushes = 0
        self._finishing = False
        self._finish_sent = False

    @property
    def finishing(self) -> bool:
        """Whether the end of the audio has been declared."""
        return self._finishing

    @property
    def replayable(self) -> bool:
        """Whether a new session can transcribe the rest: a container cannot be continued in its middle."""
        return self._audio.sample_bytes > 0 or self._cursor == 0

    @property
    def base_seconds(self) -> float:
        """The time of the stream at which the current session's clock begins, in seconds."""
        return self._seconds(self._base)

    @property
    def drained(self) -> bool:
        """Whether the current connection has sent everything."""
        return (
            self._cursor == self._end
            and self._finishing == self._finish_sent
            and all(marker.sent for marker in self._markers)
        )

    @property
    def answered(self) -> bool:
        """Whether the server has answered everything, to the precision of the times it sends."""
        left = self._end - (self._start if self._audio.sample_bytes else self._cursor)
        slack = (2 * self._samples(WIRE_ROUNDING_SECONDS) + 1) * self._audio.sample_bytes
        return left <= slack and not self._markers

    @property
    def _end(self) -> int:
        return self._start + len(self._kept)

    @property
    def _horizon(self) -> int:
        """The position at which sending waits for the server; a container never waits."""
        if not self._audio.sample_bytes:
            return self._end
        return self._transcribed + self._samples(IN_FLIGHT_SECONDS) * self._audio.sample_bytes

    def append(self, data: bytes) -> None:
        """Add audio."""
        self._kept += data

    def flush(self, marker: int) -> None:
        """Add a flush after the audio so far."""
        self._markers.append(_Marker(marker, self._end))

    def finish(self) -> None:
        """Declare the end of the audio."""
        self._finishing = True

    def frames(self) -> Iterator[bytes | str]:
        """Yield the messages that the current connection has not sent yet."""
        while (frame := self._next_frame()) is not None:
            yield frame

    def _next_frame(self) -> bytes | str | None:
        marker = next((marker for marker in self._markers if not marker.sent), None)
        limit = self._end if marker is None else marker.position
        if self._cursor < limit:
            stop = min(limit, self._cursor + FRAME_BYTES, self._horizon)
            return self._audio_frame(stop) if stop > self._cursor else None
        if marker is not None:
            marker.sent, marker.number = True, self._flushes
            self._flushes += 1
            return wire.flush(marker.id)
        if self._finishing and not self._finish_sent:
            self._finish_sent = True
            return wire.FINISH
        return None

    def _audio_frame(self, stop: int) -> bytes:
        frame = bytes(self._kept[self._cursor - self._start : stop - self._start])
        self._cursor = stop
        if not self._audio.sample_bytes:
            self._drop(stop - CONTAINER_BYTES)
        return frame

    def transcribed(self, seconds: float) -> None:
        """Note how much of the session's audio the server has transcribed, so that more can be sent."""
        self._transcribed = self._base + self._samples(seconds) * self._audio.sample_bytes

    def acknowledge(self, seconds: float) -> bool:
        """Discard the session's first `seconds`; return whether any audio was discarded."""
        if not self._audio.sample_bytes:
            return False
        position = self._base + self._samples(seconds - WIRE_ROUNDING_SECONDS) * self._audio.sample_bytes
        return self._drop(min(position, self._whole(self._cursor)))

    def answer(self, marker: int) -> bool:
        """Remove an answered flush; return whether it was pending."""
        left = [waiting for waiting in self._markers if waiting.id != marker]
        known = len(left) < len(self._markers)
        self._markers = left
        return known

    def resume(self, audio_bytes: int, flushes: int) -> bool:
        """Continue the session after what it has received; return False if the next bytes are no longer kept."""
        received = self._base + audio_bytes
        if not self._start <= received <= self._cursor:
            return False
        self._cursor = received
        self._transcribed = max(self._transcribed, received)  # nothing is in flight, and the last `lag` may be lost
        self._finish_sent = False  # the server ignores a second one
        self._flushes = flushes
        for marker in self._markers:
            marker.sent = marker.sent and marker.number < flushes
        return True

    def rewind(self) -> None:
        """Begin a new session at the first byte that has not been acknowledged."""
        self._cursor = self._base = self._transcribed = self._start
        self._finish_sent = False
        self._flushes = 0
        for marker in self._markers:
            marker.position = max(marker.position, self._start)
            marker.sent = False

    def _drop(self, position: int) -> bool:
        count = position - self._start
        if count <= 0:
            return False
        del self._kept[:count]
        self._start = position
        return True

    def _samples(self, seconds: float) -> int:
        return math.floor(seconds * self._audio.sample_rate)

    def _whole(self, position: int) -> int:
        return position - position % max(self._audio.sample_bytes, 1)

    def _seconds(self, position: int) -> float:
        return position / (self._audio.sample_bytes * self._audio.sample_rate) if self._audio.sample_bytes else 0.0

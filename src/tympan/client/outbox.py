"""What a stream was given to send and the server has not yet acknowledged, in order, so that it can be sent again.

Positions are bytes since the stream began. `resume` goes on with a session on a new connection: what did not arrive on
the old one is to be sent. `rewind` starts a new session: everything kept is to be sent once more, and that session's
clock begins at the first byte kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tympan.client import wire

FRAME_BYTES: Final = 1 << 16
"""The largest audio frame sent: far under the server's limit for a message, small enough for it to read in steps."""

IN_FLIGHT_SECONDS: Final = 10.0
"""How much audio may be on its way untranscribed. More would fill the network's buffers with minutes of sound, and
pings wait behind it until the server, or something between, takes the connection for dead."""

CONTAINER_BYTES: Final = 1 << 24
"""How much of a container is kept for a lost connection, more than networks hold on their way. Its bytes tell no time,
so it is not known how many have been transcribed."""

WIRE_ROUNDING_SECONDS: Final = 0.0005
"""Servers write times to the millisecond; what may have been rounded up is rather sent twice than lost."""


@dataclass(slots=True)
class _Marker:
    """A flush that has not been answered: it belongs after the byte at `position`."""

    id: int
    position: int
    sent: bool = False
    number: int = 0
    """Which of the session's flushes it was sent as, from 0."""


class Outbox:
    """Audio bytes, flushes and the finish, with a cursor for what the current connection has been given."""

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
        return self._finishing

    @property
    def replayable(self) -> bool:
        """Whether nothing would be missing in a new session: a container cannot be taken up in its middle."""
        return self._audio.sample_bytes > 0 or self._cursor == 0

    @property
    def base_seconds(self) -> float:
        """Where the current session's clock begins on the stream's."""
        return self._seconds(self._base)

    @property
    def drained(self) -> bool:
        """Whether the current connection has been given everything."""
        return (
            self._cursor == self._end
            and self._finishing == self._finish_sent
            and all(marker.sent for marker in self._markers)
        )

    @property
    def answered(self) -> bool:
        """Whether nothing given is left unanswered, as far as times on the wire can tell."""
        left = self._end - (self._start if self._audio.sample_bytes else self._cursor)
        slack = (2 * self._samples(WIRE_ROUNDING_SECONDS) + 1) * self._audio.sample_bytes
        return left <= slack and not self._markers

    @property
    def _end(self) -> int:
        return self._start + len(self._kept)

    @property
    def _horizon(self) -> int:
        """Where sending has to wait for the server; a container's bytes tell no time, so it never waits."""
        if not self._audio.sample_bytes:
            return self._end
        return self._transcribed + self._samples(IN_FLIGHT_SECONDS) * self._audio.sample_bytes

    def append(self, data: bytes) -> None:
        self._kept += data

    def flush(self, marker: int) -> None:
        self._markers.append(_Marker(marker, self._end))

    def finish(self) -> None:
        self._finishing = True

    def frames(self) -> Iterator[bytes | str]:
        """The frames that the current connection has still to be given; more may follow later."""
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
        """The server has come so far with the current session's audio: more may follow."""
        self._transcribed = self._base + self._samples(seconds) * self._audio.sample_bytes

    def acknowledge(self, seconds: float) -> bool:
        """The current session's first `seconds` need not be sent again; whether that was news."""
        if not self._audio.sample_bytes:
            return False
        position = self._base + self._samples(seconds - WIRE_ROUNDING_SECONDS) * self._audio.sample_bytes
        return self._drop(min(position, self._whole(self._cursor)))

    def answer(self, marker: int) -> bool:
        """A flush has been answered; whether it was waiting for that."""
        left = [waiting for waiting in self._markers if waiting.id != marker]
        known = len(left) < len(self._markers)
        self._markers = left
        return known

    def resume(self, audio_bytes: int, flushes: int) -> bool:
        """Go on with the session after what it has received. False if what follows is not kept any more."""
        received = self._base + audio_bytes
        if not self._start <= received <= self._cursor:
            return False
        self._cursor = received
        self._transcribed = max(self._transcribed, received)  # nothing is on its way, and the last `lag` may be lost
        self._finish_sent = False  # two are as good as one
        self._flushes = flushes
        for marker in self._markers:
            marker.sent = marker.sent and marker.number < flushes
        return True

    def rewind(self) -> None:
        """Begin a new session with the first byte that has not been acknowledged."""
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

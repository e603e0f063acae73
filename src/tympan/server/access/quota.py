"""What each key has used of what it may: streams at once, openings and bytes of files in a minute, audio in a day.

Everything is counted in windows that roll: a day is the last 24 hours. One process counts for itself. Memory is
bounded by the keys that the operator has made; what nobody knows is not counted.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from tympan.config import KeySettings
from tympan.errors import QuotaError

MINUTE_SECONDS = 60.0
DAY_SECONDS = 86_400.0
PARTS = 60
A_STREAM_ENDS_SECONDS = 5  # a guess, as it is when all slots are taken


class Window:
    """The sum of what was added in the last `seconds`, to a sixtieth of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._part = seconds / PARTS
        self._parts: deque[list[float]] = deque()  # [when it began, amount], the oldest first
        self._total = 0.0

    def add(self, amount: float, now: float) -> None:
        begin = math.floor(now / self._part) * self._part
        if not self._parts or self._parts[-1][0] != begin:
            self._parts.append([begin, 0.0])
        self._parts[-1][1] += amount
        self._total += amount

    def total(self, now: float) -> float:
        while self._parts and self._leaves_at(self._parts[0]) <= now:
            self._total -= self._parts.popleft()[1]
        if not self._parts:
            self._total = 0.0  # rounding does not add up over months
        return self._total

    def seconds_until_below(self, limit: float, now: float) -> int:
        """After which the total is below `limit`, if nothing is added: whole seconds, at least 1."""
        total = self.total(now)
        for part in self._parts:
            total -= part[1]
            if total < limit:
                return max(1, math.ceil(self._leaves_at(part) - now))
        return 1

    def _leaves_at(self, part: list[float]) -> float:
        return part[0] + self._part + self._seconds


class Account:
    """One key's use, and its limits, which may change while it is used. `now` is always the event loop's time."""

    def __init__(self, limits: KeySettings) -> None:
        self.limits = limits
        self.id = ""
        self.name = ""
        self.streams = 0
        self.audio_seconds = 0.0
        self._openings = Window(MINUTE_SECONDS)
        self._file_bytes = Window(MINUTE_SECONDS)
        self._audio = Window(DAY_SECONDS)

    def open(self, session: AudioMeter, streams: int, now: float) -> Usage:
        """For a new session of so many streams: all of them or none. Raises `QuotaError`."""
        most = self.limits.key_streams
        if most is not None and self.streams + streams > most:
            raise QuotaError(f"streams at once are limited to {most}", A_STREAM_ENDS_SECONDS)
        most = self.limits.key_opens_per_minute
        if most is not None and self._openings.total(now) >= most:
            wait = self._openings.seconds_until_below(most, now)
            raise QuotaError(f"streams and files opened in a minute are limited to {most}", wait)
        spent = self.spent(now)
        if spent is not None:
            raise spent
        self._openings.add(1, now)
        self.streams += streams
        return Usage(self, session, streams)

    def leave(self, streams: int) -> None:
        self.streams -= streams

    def hear(self, seconds: float, now: float) -> None:
        """So much more audio, of all channels together."""
        self._audio.add(seconds, now)
        self.audio_seconds += seconds

    def spent(self, now: float) -> QuotaError | None:
        """What to tell once no more audio may be heard."""
        most = self.limits.key_minutes_per_day
        if most is None or self._audio.total(now) < 60 * most:
            return None
        wait = self._audio.seconds_until_below(60 * most, now)
        return QuotaError(f"minutes of audio within 24 hours are limited to {most:g}", wait)

    def upload(self, count: int, now: float) -> None:
        """So many more bytes of a file have come. Raises `QuotaError`."""
        self._file_bytes.add(count, now)
        most = self.limits.key_upload_bytes_per_minute
        if most is not None and self._file_bytes.total(now) > most:
            wait = self._file_bytes.seconds_until_below(most, now)
            raise QuotaError(f"bytes of files in a minute are limited to {most}", wait)


class AudioMeter(Protocol):
    """A session, as far as it is counted."""

    @property
    def heard_seconds(self) -> float:
        """Audio of all channels together; never less than before."""


class Usage:
    """What one session has of its key's account, until its `end`."""

    def __init__(self, account: Account, session: AudioMeter, streams: int) -> None:
        self._account = account
        self._session = session
        self._streams = streams
        self._counted_seconds = 0.0

    def spent(self, now: float) -> QuotaError | None:
        """Count the audio that came since the last time: an error when the account has no more."""
        heard = self._session.heard_seconds
        if heard > self._counted_seconds:
            self._account.hear(heard - self._counted_seconds, now)
            self._counted_seconds = heard
        return self._account.spent(now)

    def end(self, now: float) -> None:
        """Count what is left, and give the streams back. May be called again."""
        self.spent(now)
        self._account.leave(self._streams)
        self._streams = 0

"""Usage of each API key and its limits: concurrent streams, new streams and bytes of files per minute, audio per day.

Rates are counted in sliding windows: a day is the last 24 hours. Each server counts for itself, its front processes
together (`ledger.py`). Memory is bounded by the number of configured keys.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from tympan.config import KeySettings
from tympan.errors import AccessError, QuotaError

MINUTE_SECONDS = 60.0
DAY_SECONDS = 86_400.0
BUCKETS = 60
STREAM_RETRY_SECONDS = 5  # a guess at when a stream ends, as where all slots are in use


class SlidingWindow:
    """The sum of the amounts added in the last `seconds`, with a resolution of a sixtieth of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bucket_seconds = seconds / BUCKETS
        self._buckets: deque[list[float]] = deque()  # [start time, amount], oldest first
        self._total = 0.0

    def add(self, amount: float, now: float) -> None:
        start = math.floor(now / self._bucket_seconds) * self._bucket_seconds
        if not self._buckets or self._buckets[-1][0] != start:
            self._buckets.append([start, 0.0])
        self._buckets[-1][1] += amount
        self._total += amount

    def total(self, now: float) -> float:
        while self._buckets and self._expires_at(self._buckets[0]) <= now:
            self._total -= self._buckets.popleft()[1]
        if not self._buckets:
            self._total = 0.0  # discard the rounding errors
        return self._total

    def seconds_until_below(self, limit: float, now: float) -> int:
        """Return the seconds, at least 1, until the total falls below `limit` if nothing is added."""
        total = self.total(now)
        for bucket in self._buckets:
            total -= bucket[1]
            if total < limit:
                return max(1, math.ceil(self._expires_at(bucket) - now))
        return 1

    def _expires_at(self, bucket: list[float]) -> float:
        return bucket[0] + self._bucket_seconds + self._seconds


class Account:
    """The usage and the limits of one API key. `now` is always the event loop's time.

    Attributes:
        limits: The key's limits; they may change while it is in use.
        id: The key's id in tokens; empty for requests without a key.
        name: The key's name in metrics; empty if it has none.
        streams: Streams in use now.
        audio_seconds: Audio received so far, summed over channels.
        revoked: Whether the key has been removed.
    """

    def __init__(self, limits: KeySettings) -> None:
        self.limits = limits
        self.id = ""
        self.name = ""
        self.streams = 0
        self.audio_seconds = 0.0
        self.revoked = False
        self._openings = SlidingWindow(MINUTE_SECONDS)
        self._file_bytes = SlidingWindow(MINUTE_SECONDS)
        self._audio = SlidingWindow(DAY_SECONDS)

    def open(self, session: AudioMeter, streams: int, now: float) -> Usage:
        """Reserve all of a new session's streams.

        Raises:
            AccessError: The key has been removed.
            QuotaError: A limit is reached; no stream is reserved.
        """
        self.reserve(streams, now)
        return Usage(self, session, streams)

    def reserve(self, streams: int, now: float) -> None:
        """Reserve the streams of one session.

        Raises:
            AccessError: The key has been removed.
            QuotaError: A limit is reached; no stream is reserved.
        """
        if self.revoked:
            raise self.revoked_error()
        limit = self.limits.key_streams
        if limit is not None and self.streams + streams > limit:
            raise QuotaError(f"the limit of {limit} concurrent streams is reached", STREAM_RETRY_SECONDS)
        limit = self.limits.key_opens_per_minute
        if limit is not None and self._openings.total(now) >= limit:
            wait = self._openings.seconds_until_below(limit, now)
            raise QuotaError(f"the limit of {limit} new streams and files per minute is reached", wait)
        error = self.audio_error(now)
        if error is not None:
            raise error
        self.take(streams, now)

    def take(self, streams: int, now: float) -> None:
        """Count the streams of a new session, without checking limits."""
        self._openings.add(1, now)
        self.streams += streams

    def release(self, streams: int) -> None:
        self.streams -= streams

    def add_audio(self, seconds: float, now: float) -> None:
        self._audio.add(seconds, now)
        self.audio_seconds += seconds

    def error(self, now: float) -> AccessError | QuotaError | None:
        """Return an error if open streams of the key have to end: it was removed, or its audio is used up."""
        return self.revoked_error() if self.revoked else self.audio_error(now)

    def revoked_error(self) -> AccessError:
        """Return the error for streams of a key that was removed."""
        return AccessError("the API key of this stream has been removed; use another key")

    def audio_error(self, now: float) -> QuotaError | None:
        """Return an error if the audio of the last 24 hours is used up."""
        limit = self.limits.key_minutes_per_day
        if limit is None or self._audio.total(now) < 60 * limit:
            return None
        wait = self._audio.seconds_until_below(60 * limit, now)
        return QuotaError(f"the limit of {limit:g} minutes of audio in 24 hours is reached", wait)

    def upload(self, count: int, now: float) -> None:
        """Count received bytes of a file.

        Raises:
            QuotaError: The limit on bytes per minute is exceeded.
        """
        self.add_file_bytes(count, now)
        error = self.file_error(now)
        if error is not None:
            raise error

    def add_file_bytes(self, count: int, now: float) -> None:
        self._file_bytes.add(count, now)

    def file_bytes(self, now: float) -> float:
        """Return the bytes of files received in the last minute."""
        return self._file_bytes.total(now)

    def file_error(self, now: float) -> QuotaError | None:
        """Return an error if more bytes of files were received in the last minute than the limit allows."""
        limit = self.limits.key_upload_bytes_per_minute
        if limit is None or self.file_bytes(now) <= limit:
            return None
        wait = self._file_bytes.seconds_until_below(limit, now)
        return QuotaError(f"the limit of {limit} bytes of files per minute is exceeded", wait)


class AudioMeter(Protocol):
    """A session, as quotas measure it."""

    @property
    def heard_seconds(self) -> float:
        """Audio received so far, summed over channels; never decreases."""


class Usage:
    """What one session uses of an account, until `end`."""

    def __init__(self, account: Account, session: AudioMeter, streams: int) -> None:
        self._account = account
        self._session = session
        self._streams = streams
        self._counted_seconds = 0.0

    def spent(self, now: float) -> AccessError | QuotaError | None:
        """Count the audio received since the last call; return an error if the session has to end."""
        seconds = self._session.heard_seconds
        if seconds > self._counted_seconds:
            self._account.add_audio(seconds - self._counted_seconds, now)
            self._counted_seconds = seconds
        return self._account.error(now)

    def end(self, now: float) -> None:
        """Count the remaining audio and release the streams; later calls have no effect."""
        self.spent(now)
        self._account.release(self._streams)
        self._streams = 0

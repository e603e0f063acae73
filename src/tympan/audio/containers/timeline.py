"""Places decoded frames at their container timestamps: late starts and gaps become silence, overlaps are trimmed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# The start of the audio is exact to a block of Opus; later jitter of timestamps in milliseconds is not a gap.
START_TOLERANCE_SECONDS: Final = 0.02
TOLERANCE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest jumps of timestamps that are gaps and overlaps; a larger one is a new time base."""

    gap_seconds: float
    overlap_seconds: float


# ffmpeg's limits for streams with discontinuities, and generous ones for files.
_BROADCAST = Limits(gap_seconds=10.0, overlap_seconds=1.0)
_FILE = Limits(gap_seconds=3600.0, overlap_seconds=10.0)
_LIMITS: Final = {
    "matroska": _FILE,
    "mov": _FILE,
    "avi": _FILE,
    "flv": _FILE,
    "asf": _FILE,
    "ogg": _FILE,
    "nut": _FILE,
    "mxf": _FILE,
    "mpegts": _BROADCAST,
    "mpeg": _BROADCAST,
}


def timeline_for(demuxer: str) -> Timeline | None:
    """Return a timeline for one of libav's demuxers, or None if its timestamps only count samples."""
    limits = _LIMITS.get(demuxer.partition(",")[0])
    return None if limits is None else Timeline(limits)


class Timeline:
    """The time of one track relative to the start of its container.

    Args:
        limits: The largest gap and overlap.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._origin: float | None = None  # the earliest timestamp of all tracks
        self._first: float | None = None  # the timestamp of the first frame
        self._base = 0.0  # the timestamp of position 0
        self._position = 0.0

    def starts_at(self, seconds: float) -> None:
        """Add the timestamp of a packet of any track; those after the first frame have no effect."""
        if self._first is None:
            self._origin = seconds if self._origin is None else min(self._origin, seconds)

    def place(self, start: float | None, duration: float) -> tuple[float, float]:
        """Place a frame.

        Args:
            start: Its timestamp in seconds; None if it follows the frame before it.
            duration: Its length in seconds.

        Returns:
            Seconds of silence that precede the frame, and seconds to remove from its start.
        """
        silence, removed = (0.0, 0.0) if start is None else self._jump(start, duration)
        self._position += silence + duration - removed
        return silence, removed

    def _jump(self, start: float, duration: float) -> tuple[float, float]:
        tolerance = TOLERANCE_SECONDS
        if self._first is None:
            self._first = start
            self._base = start - self._position if self._origin is None else min(self._origin, start)
            tolerance = START_TOLERANCE_SECONDS
        ahead = start - self._base - self._position
        if abs(ahead) <= tolerance:
            return 0.0, 0.0
        begins_again = start <= self._first + TOLERANCE_SECONDS and self._position > 0
        if not -self._limits.overlap_seconds <= ahead <= self._limits.gap_seconds or begins_again:
            self._base += ahead
            return 0.0, 0.0
        return (ahead, 0.0) if ahead > 0 else (0.0, min(-ahead, duration))

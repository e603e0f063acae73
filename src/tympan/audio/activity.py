"""Silence by energy, for engines whose model says nothing about pauses."""

from __future__ import annotations

import numpy as np

from tympan.messages import Samples

SPEECH_ABOVE_FLOOR_DB = 10.0
QUIETEST_SPEECH_DB = -50.0  # of full scale
FLOOR_RISES_DB_PER_SECOND = 1.0  # noise that stays is floor after a while; speech has pauses that pull it down again


def pauses_from_silence(silence_seconds: float, horizons: tuple[float, ...]) -> tuple[float, ...]:
    """A stand-in for P(pause): the share of each horizon, in seconds, that has been silent already."""
    return tuple(round(min(1.0, silence_seconds / horizon), 3) for horizon in horizons)


class SilenceMeter:
    """Follows the noise floor of one stream; a frame is speech when it stands out of it."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._floor_db = 0.0
        self._silence = 0.0

    def push(self, frame: Samples) -> float:
        """One frame, mono float32 `[n]`; returns the seconds of silence up to its end."""
        seconds = len(frame) / self._sample_rate
        level_db = 10.0 * float(np.log10(np.dot(frame, frame) / len(frame) + 1e-10))
        self._floor_db = min(level_db, self._floor_db + FLOOR_RISES_DB_PER_SECOND * seconds)
        is_speech = level_db > max(self._floor_db + SPEECH_ABOVE_FLOOR_DB, QUIETEST_SPEECH_DB)
        self._silence = 0.0 if is_speech else self._silence + seconds
        return self._silence

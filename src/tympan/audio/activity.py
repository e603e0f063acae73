"""Silence by energy: for engines whose model says nothing about pauses, and for what a model should have heard."""

from __future__ import annotations

SPEECH_ABOVE_FLOOR = 10.0 ** (10.0 / 20.0)  # 10 dB
QUIETEST_SPEECH = 10.0 ** (-50.0 / 20.0)  # -50 dB of full scale
QUIETEST_FLOOR = 10.0 ** (-100.0 / 20.0)
FLOOR_RISES_DB_PER_SECOND = 1.0  # noise that stays is floor after a while; speech has pauses that pull it down again


def pauses_from_silence(silence_seconds: float, horizons: tuple[float, ...]) -> tuple[float, ...]:
    """A stand-in for P(pause): the share of each horizon, in seconds, that has been silent already."""
    return tuple(round(min(1.0, silence_seconds / horizon), 3) for horizon in horizons)


class SilenceMeter:
    """Follows the noise floor of one stream; a frame is speech when it stands out of it."""

    def __init__(self, frame_seconds: float) -> None:
        self._rise = 10.0 ** (FLOOR_RISES_DB_PER_SECOND * frame_seconds / 20.0)
        self._floor = 1.0
        self._silent_frames = 0

    def push(self, level: float) -> int:
        """The root mean square of one frame's samples; returns how many frames up to this one were silent in a row."""
        floor = self._floor * self._rise
        if level < floor:  # every frame of every stream comes here: `min` and `max` take three times as long
            floor = level if level > QUIETEST_FLOOR else QUIETEST_FLOOR
        self._floor = floor
        if level > QUIETEST_SPEECH and level > floor * SPEECH_ABOVE_FLOOR:
            self._silent_frames = 0
        else:
            self._silent_frames += 1
        return self._silent_frames

"""Speech and silence by energy, for models without pause heads and for the stall guard."""

from __future__ import annotations

SPEECH_ABOVE_FLOOR = 10.0 ** (10.0 / 20.0)  # 10 dB
QUIETEST_SPEECH = 10.0 ** (-50.0 / 20.0)  # -50 dB of full scale
QUIETEST_FLOOR = 10.0 ** (-100.0 / 20.0)
FLOOR_RISES_DB_PER_SECOND = 1.0  # steady noise becomes the floor; pauses in speech lower it again


def pauses_from_silence(silence_seconds: float, horizons: tuple[float, ...]) -> tuple[float, ...]:
    """Return a substitute for pause probabilities: the share of each horizon (seconds) that was silent."""
    return tuple(round(min(1.0, silence_seconds / horizon), 3) for horizon in horizons)


class SilenceMeter:
    """Follows the noise floor of one stream; a frame above it is speech."""

    def __init__(self, frame_seconds: float) -> None:
        self._rise = 10.0 ** (FLOOR_RISES_DB_PER_SECOND * frame_seconds / 20.0)
        self._floor = 1.0
        self._silent_frames = 0

    def push(self, level: float) -> int:
        """Add a frame's root mean square; return how many frames up to this one were silent in a row."""
        floor = self._floor * self._rise
        if level < floor:  # called for every frame; `min` and `max` take three times as long
            floor = level if level > QUIETEST_FLOOR else QUIETEST_FLOOR
        self._floor = floor
        if level > QUIETEST_SPEECH and level > floor * SPEECH_ABOVE_FLOOR:
            self._silent_frames = 0
        else:
            self._silent_frames += 1
        return self._silent_frames

"""Speech at the wrong speed: the sign of a wrong sample rate."""

from __future__ import annotations

import numpy as np

from tympan.audio.tempo import Tempo, measure
from tympan.messages import AudioFormat, Samples, Warning

_WINDOW_SECONDS = 8
_MOST_WINDOWS = 7
_WINDOWS_TO_BE_SURE = 2
_MEASURED_RATE = 8_000
_VOICED_SECONDS = 1.0
_TONE_SPREAD = 0.05  # below it, it is a ringing tone and not a voice
# Adults speak at 90 to 280 Hz and modulate at 1.5 to 4.5 Hz, children at up to 400 Hz, not faster. The product of the
# two goes with the square of the speed, while a high voice is no reason to speak fast. Over adults of nine languages,
# clean, noisy, reverberant and through the telephone's band, it was 220 to 1370 Hz².
_HIGH_HZ, _HIGH_AND_FAST = 400.0, 2_000.0
_LOW_HZ, _LOW_AND_SLOW = 80.0, 150.0


class PaceCheck:
    """Measures windows of 8 seconds in the first minute; warns when two of them are impossible in the same way."""

    def __init__(self, format: AudioFormat, sample_rate: int) -> None:
        self.done = False
        self._declared_rate = format.sample_rate
        self._step = max(1, sample_rate // _MEASURED_RATE)
        self._measured_rate = sample_rate // self._step
        self._window: list[Samples] = []
        self._windows = 0
        self._fast = self._slow = 0

    def __call__(self, second: Samples, peak: float) -> Warning | None:
        """One second of mono samples; their peak does not matter here."""
        self._window.append(_mean_of_neighbours(second, self._step))
        if len(self._window) < _WINDOW_SECONDS:
            return None
        tempo = measure(np.concatenate(self._window), self._measured_rate)
        self._window = []
        self._windows += 1
        warning = self._verdict(tempo)
        self.done = warning is not None or self._windows == _MOST_WINDOWS
        return warning

    def _verdict(self, tempo: Tempo) -> Warning | None:
        product = tempo.pitch_hz * tempo.modulation_hz
        if tempo.voiced_seconds >= _VOICED_SECONDS and tempo.pitch_spread > _TONE_SPREAD:
            self._fast += tempo.pitch_hz > _HIGH_HZ and product > _HIGH_AND_FAST
            self._slow += tempo.pitch_hz < _LOW_HZ and product < _LOW_AND_SLOW
        if self._fast >= _WINDOWS_TO_BE_SURE:
            return self._warning("high and fast", "lower")
        if self._slow >= _WINDOWS_TO_BE_SURE:
            return self._warning("low and slow", "higher")
        return None

    def _warning(self, sound: str, direction: str) -> Warning:
        return Warning(
            "sample_rate",
            f"at {self._declared_rate} samples per second the voice sounds too {sound}; "
            f"the recording's rate is probably {direction}: set sample_rate to it",
        )


def _mean_of_neighbours(samples: Samples, count: int) -> Samples:
    """A lower rate; filter enough for pitch and loudness. Column by column, which numpy does ten times as fast."""
    columns = samples[: len(samples) // count * count].reshape(-1, count)
    total = columns[:, 0].copy()
    for column in range(1, count):
        total += columns[:, column]
    total /= np.float32(count)
    return total

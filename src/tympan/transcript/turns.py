"""When somebody starts and ends a turn, from released words and the engine's pause probabilities.

A turn starts with the first word after the last one ended. It ends when P(pause) at the 2 s horizon rises above
`turn_end`, with hysteresis: after one turn has ended, the next can end only once P(pause) fell below `turn_resume`,
or some time after its last word (a word that arrives late, into a pause, opens a turn that no fall would ever close).
The first steps of a stream are not believed: the model's pause heads are noise there.
"""

from __future__ import annotations

from collections.abc import Sequence

from tympan.config import TurnSettings
from tympan.messages import Progress, Turn, Word

HORIZON_SECONDS = 2.0
LATE_WORD_SECONDS = 1.0


class TurnDetector:
    """Fed with every `Word` and `Progress` of one stream; answers with the `Turn` events they cause."""

    def __init__(self, settings: TurnSettings, pause_horizons: tuple[float, ...]) -> None:
        self._settings = settings
        self._head = (
            pause_horizons.index(HORIZON_SECONDS) if HORIZON_SECONDS in pause_horizons else len(pause_horizons) - 1
        )
        self._steps = 0
        self._open = False
        self._fell = True
        self._now = 0.0
        self._last_word_at = 0.0

    def word(self, word: Word) -> Sequence[Turn]:
        self._last_word_at = self._now
        if self._open:
            return ()
        self._open = True
        return (Turn("started", word.start, 0.0),)

    def progress(self, progress: Progress) -> Sequence[Turn]:
        self._steps += 1
        self._now = progress.time
        if not progress.pauses:
            return ()
        pause = progress.pauses[self._head]
        self._fell = self._fell or pause < self._settings.turn_resume
        believed = self._steps > self._settings.turn_holdoff_steps
        may_end = self._fell or self._now - self._last_word_at >= LATE_WORD_SECONDS
        if self._open and believed and may_end and pause > self._settings.turn_end:
            self._open = self._fell = False
            return (Turn("ended", progress.time, pause),)
        return ()

    def finish(self) -> Sequence[Turn]:
        """The stream ends, and with it an open turn."""
        if not self._open:
            return ()
        self._open = False
        return (Turn("ended", self._now, 1.0),)

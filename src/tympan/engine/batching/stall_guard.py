"""A model that fell silent on speech: when to start it again, and from where.

Kyutai's 1B model now and then stops transcribing for minutes while somebody speaks. What tells is speech by energy
for which no word comes. Music and noise have energy, too: so each time that starting again brings no word, it takes
twice as much for the next one. Silence in between neither counts nor takes back: whoever says a word now and then,
as callers of a voice agent do, is not to wait for ever.

The pause heads can only speak against the model. They read the same hidden state as the text does, and were trained
to foresee words in that text: P(pause) is high in music, and as high when the model has fallen silent on speech, so it
excuses nothing. P(pause) low and no word, though, is a model that contradicts itself: such frames count twice.

What is heard again had best begin in a pause: a model that begins in the middle of a word may well stay silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tympan.engine.base import EngineInfo
from tympan.engine.batching.scheduler import REPLAY_FRAMES
from tympan.transcript.turns import HORIZON_SECONDS

PAUSE_FRAMES = 2  # silent ones; what is shorter may be a consonant
LEAD_FRAMES = 12  # of the pause before speech, to begin with
PATIENCE_FRAMES = 25  # in which a pause may come; after that, without one
EXPECTS_A_WORD = 0.4  # P(pause) below this


class StallGuard:
    """Watches one stream. Frames have the scheduler's numbers; `seconds` of speech without a word are a stall."""

    def __init__(self, seconds: float, info: EngineInfo) -> None:
        self._first_limit = self._limit = seconds / info.frame_seconds
        self._delay_frames = int(info.delay_seconds / info.frame_seconds)
        self._head = info.pause_horizons.index(HORIZON_SECONDS) if info.turns_from == "model" else None
        self._unheard_frames = 0
        self._patience = PATIENCE_FRAMES
        self._silent_frames = 0
        self._last_text = 0
        self._onsets: deque[int] = deque(maxlen=REPLAY_FRAMES)

    def text(self, number: int) -> None:
        """Frame `number` gave text."""
        self._limit = self._first_limit
        self._unheard_frames = 0
        self._patience = PATIENCE_FRAMES
        self._last_text = number

    def hear(self, number: int, silent_frames: int, pauses: Sequence[float]) -> int | None:
        """Frame `number` of audio, after its text: how many frames up to it were silent, and P(pause) for each horizon.

        Returns the frame to start again from, if now is the time; `started` if that was done.
        """
        if not silent_frames:
            if self._silent_frames >= PAUSE_FRAMES:
                self._onsets.append(number - min(self._silent_frames, LEAD_FRAMES))
            self._unheard_frames += 1 if self._head is None or pauses[self._head] >= EXPECTS_A_WORD else 2
        self._silent_frames = silent_frames
        if self._unheard_frames < self._limit:
            return None
        if silent_frames < PAUSE_FRAMES and self._patience > 0:
            self._patience -= 1
            return None
        return self._start(number)

    def started(self) -> None:
        """The model was started again."""
        self._limit *= 2
        self._unheard_frames = 0
        self._patience = PATIENCE_FRAMES

    def _start(self, number: int) -> int:
        """The last pause before what was not transcribed, else the first one in it."""
        # From its first frame on a stream would only say once more what it said.
        oldest = max(1, number + 1 - REPLAY_FRAMES)
        starts = [max(onset, oldest) for onset in self._onsets if onset + PAUSE_FRAMES >= oldest]
        if self._silent_frames >= PAUSE_FRAMES:
            starts.append(max(oldest, number + 1 - min(self._silent_frames, LEAD_FRAMES)))
        transcribed = self._last_text - self._delay_frames
        before = [start for start in starts if start <= transcribed]
        return before[-1] if before else starts[0] if starts else oldest

"""Detection of a model that stopped transcribing speech, and the choice of the frame to restart it from.

Kyutai's 1B model occasionally stops transcribing for minutes during speech. The sign is speech, measured by energy,
without a word. Music and noise have energy too, so the limit doubles each time a restart brings no word. Silence
neither counts nor resets the count: the callers of a voice agent say only a few words at a time.

P(pause) cannot excuse missing words. The pause heads read the same hidden state as the text and were trained to predict
words in that text: P(pause) is as high for speech that the model ignores as it is for music. A low P(pause) without a
word, however, is a contradiction: such frames count twice.

The replayed frames should start in a pause: a model that starts in the middle of a word may stay silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tympan.engine.base import EngineInfo
from tympan.engine.batching.scheduler import REPLAY_FRAMES
from tympan.transcript.turns import HORIZON_SECONDS

PAUSE_FRAMES = 2  # least silence that is a pause; less may be a consonant
LEAD_FRAMES = 12  # most frames of a pause that are replayed before the speech
PATIENCE_FRAMES = 25  # wait for a pause this long before a restart without one
EXPECTS_A_WORD = 0.4  # below this P(pause) the model expects a word


class StallGuard:
    """Watches the frames of one stream.

    Args:
        seconds: Speech without a word that counts as a stall.
        info: The engine's description.
    """

    def __init__(self, seconds: float, info: EngineInfo) -> None:
        self._first_limit = self._limit = seconds / info.frame_seconds
        self._delay_frames = int(info.delay_seconds / info.frame_seconds)
        self._head = info.pause_horizons.index(HORIZON_SECONDS) if info.turns_from == "model" else None
        self._untranscribed_frames = 0
        self._patience = PATIENCE_FRAMES
        self._silent_frames = 0
        self._last_text = 0
        self._onsets: deque[int] = deque(maxlen=REPLAY_FRAMES)

    def on_text(self, number: int) -> None:
        """Record that frame `number`, by the scheduler's count, produced text."""
        self._limit = self._first_limit
        self._untranscribed_frames = 0
        self._patience = PATIENCE_FRAMES
        self._last_text = number

    def on_audio(self, number: int, silent_frames: int, pauses: Sequence[float]) -> int | None:
        """Record a frame of audio, after its text.

        Args:
            number: The frame's number, by the scheduler's count.
            silent_frames: Consecutive silent frames up to this one.
            pauses: P(pause) for each horizon.

        Returns:
            The frame to restart the model from, or None if no restart is due. The caller confirms a restart with
            `on_restart`.
        """
        if not silent_frames:
            if self._silent_frames >= PAUSE_FRAMES:
                self._onsets.append(number - min(self._silent_frames, LEAD_FRAMES))
            self._untranscribed_frames += 1 if self._head is None or pauses[self._head] >= EXPECTS_A_WORD else 2
        self._silent_frames = silent_frames
        if self._untranscribed_frames < self._limit:
            return None
        if silent_frames < PAUSE_FRAMES and self._patience > 0:
            self._patience -= 1
            return None
        return self._restart_frame(number)

    def on_restart(self) -> None:
        """Record that the model was restarted."""
        self._limit *= 2
        self._untranscribed_frames = 0
        self._patience = PATIENCE_FRAMES

    def _restart_frame(self, number: int) -> int:
        """Return the last pause before the untranscribed speech, else the first pause in it."""
        # Not frame 0: the result of a stream that is replayed as a whole would be the same.
        oldest = max(1, number + 1 - REPLAY_FRAMES)
        starts = [max(onset, oldest) for onset in self._onsets if onset + PAUSE_FRAMES >= oldest]
        if self._silent_frames >= PAUSE_FRAMES:
            starts.append(max(oldest, number + 1 - min(self._silent_frames, LEAD_FRAMES)))
        transcribed = self._last_text - self._delay_frames
        before = [start for start in starts if start <= transcribed]
        return before[-1] if before else starts[0] if starts else oldest

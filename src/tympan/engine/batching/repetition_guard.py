"""Detection of a model that repeats the same words without end.

It is a known failure of Kyutai's models: the text feeds itself, whatever the audio is. The sign is a sequence of up to
`LONGEST_PERIOD` tokens that follows itself at least `LEAST_REPEATS` times and for at least `LEAST_TOKENS` tokens, which
speech does not contain by accident. A chant may; it costs a reset of the model's state. Each further reset requires
twice as many tokens, until as much text has come without one.
"""

from __future__ import annotations

from collections import deque

from tympan.transcript.words import BOUNDARY, PADDING

LONGEST_PERIOD = 16
LEAST_REPEATS = 8
LEAST_TOKENS = 32
REPLAYED_FRAMES = 12  # before the reset: a second, so that the model need not start in the middle of a word


class RepetitionGuard:
    """Watches the tokens of one stream.

    Attributes:
        is_looping: Whether the text repeats itself, until `on_restart` or other text.
    """

    def __init__(self) -> None:
        self.is_looping = False
        self._last: deque[int] = deque(maxlen=LONGEST_PERIOD)  # tokens, the newest first
        self._repeated = [0] * LONGEST_PERIOD  # tokens in a row that equal the one a period before, by period
        self._factor = 1
        self._other_tokens = 0  # since the last restart

    def push(self, token: int) -> None:
        """Record a token."""
        if token in (PADDING, BOUNDARY):
            return
        for index, earlier in enumerate(self._last):
            self._repeated[index] = self._repeated[index] + 1 if token == earlier else 0
        self._last.appendleft(token)
        self._other_tokens += 1
        if self._other_tokens >= self._factor * LEAST_REPEATS * LONGEST_PERIOD:
            self._factor = 1
        self.is_looping = any(
            repeated and repeated + period >= self._factor * max(LEAST_TOKENS, LEAST_REPEATS * period)
            for period, repeated in enumerate(self._repeated, 1)
        )

    def on_restart(self) -> None:
        """Record that the model was restarted."""
        self.is_looping = False
        self._last.clear()
        self._repeated = [0] * LONGEST_PERIOD
        self._factor *= 2
        self._other_tokens = 0

"""From a delayed-streams model's text tokens to words with times and confidence.

The model emits one token per frame. 3 is padding ("nothing yet"), 0 marks a boundary ("the next word starts here"),
anything else is a SentencePiece id. Pieces gather until a 0 or 3 follows: only then is the word complete. Fast speech
may skip the boundary, so one release can hold several words; the first one of a stream can be empty.

Times follow Kyutai's production server, so that its clients see the times they know: LM position k is k / 12.5 - 0.40
s with the half-second model, that is, k frames less the model's delay less `EARLY_SECONDS`. Silence injected before a
stream or by a flush does not move the clock. They are kept as whole milliseconds, which are exact and need no rounding.

A model that was started again says once more what it had said of the frames that it is given again. A word is that of
before when its middle lies before the end of the last released one: so none is lost or doubled as long as the second
hearing moves no word by half its length.
"""

from __future__ import annotations

import math
from itertools import pairwise

from tympan.messages import EngineEvent, Partial, Word
from tympan.transcript.tokenizer import WORD_START, Tokenizer, text_of

BOUNDARY, PADDING = 0, 3
FRAME_MS = 80
EARLY_SECONDS = 0.10  # to be calibrated on aligned speech, with the real weights

WordEvents = list[EngineEvent]
"""`Word` and `Partial`, and the caller may add others."""


class WordAssembler:
    """One stream's words. `step` takes the token of every frame, in order; `release` ends a flush."""

    def __init__(self, tokenizer: Tokenizer, delay_seconds: float, prefix_frames: int = 0) -> None:
        self._tokenizer = tokenizer
        self._lag_ms = round(1000 * (delay_seconds - EARLY_SECONDS))
        self._delay_frames = int(1000 * delay_seconds / FRAME_MS)
        self._prefix_frames = prefix_frames
        self._believed_from = prefix_frames + self._delay_frames
        self._position = 0
        self._received_frames = 0
        self._injected_frames = prefix_frames
        self._injecting_frames = 0
        self._boundary = 0  # this and the next three in milliseconds
        self._heard_until = 0
        self._released_until = 0
        self._known_until = 0
        self._pieces: list[str] = []
        self._positions: list[int] = []
        self._log_probability: list[float] = []

    def step(self, token: int, probability: float, injected: bool = False) -> WordEvents:
        """The token that one more frame gave; `injected` frames are silence of a flush or, the first `prefix_frames` of
        a stream, before it: not received audio.
        """
        self._position += 1
        if not injected:
            self._received_frames += 1
        elif self._position > self._prefix_frames:
            self._injecting_frames += 1
        if token in (PADDING, BOUNDARY):
            events = self._release() if self._pieces else []
            if token == BOUNDARY:
                self._boundary = self._time(self._position)
            return events
        if self._position < self._believed_from:
            return []
        self._pieces.append(self._tokenizer.piece(token))
        self._positions.append(self._position)
        self._log_probability.append(math.log(max(probability, 1e-9)))
        if self._is_known(self._position):
            return []
        return [Partial(text_of(self._pieces).strip(" \ufffd"), self._start(self._positions[0]) / 1000)]

    def rewind(self, position: int) -> WordEvents:
        """The model was started again: the next token is that of frame `position`, counted from 0. Between that one and
        now there is no silence of a flush.
        """
        taken_back: WordEvents = [Partial("", self._released_until / 1000)] if self._pieces else []
        self._forget_pieces()
        self._received_frames -= self._position - position
        self._position = position
        self._believed_from = self._position + self._delay_frames
        self._boundary = self._heard_until = self._time(self._position)
        self._known_until = self._released_until
        return taken_back

    def release(self) -> WordEvents:
        """End a flush: the pending word goes out, and the frames injected for it leave the clock."""
        events = self._release() if self._pieces else []
        self._injected_frames += self._injecting_frames
        self._injecting_frames = 0
        return events

    def _release(self) -> WordEvents:
        events: WordEvents = []
        for (first, last), (start, end) in self._words():
            text = text_of(self._pieces[first:last]).strip()
            if not text:
                continue
            begin = max(start, self._heard_until)
            self._heard_until = max(begin, end)
            if begin + self._heard_until < 2 * self._known_until:
                continue
            confidence = math.exp(sum(self._log_probability[first:last]) / (last - first))
            begin = max(begin, self._released_until)
            self._released_until = max(begin, end)
            events.append(Word(text, begin / 1000, self._released_until / 1000, round(confidence, 4)))
        was_shown = not self._is_known(self._positions[-1])
        self._forget_pieces()
        if events or was_shown:
            events.append(Partial("", self._released_until / 1000))
        return events

    def _is_known(self, position: int) -> bool:
        """Whether a piece there can only be of words released before the model was started again."""
        return self._known_until > 0 and self._time(position) <= self._known_until

    def _forget_pieces(self) -> None:
        self._pieces, self._positions, self._log_probability = [], [], []

    def _words(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Each word: from and to which piece, and time. A piece that starts with a space starts a word."""
        cuts = [index for index, piece in enumerate(self._pieces) if not index or piece.startswith(WORD_START)]
        times = [self._start(self._positions[cut]) for cut in cuts]
        cuts.append(len(self._pieces))
        times.append(self._time(self._position))
        return list(zip(pairwise(cuts), pairwise(times), strict=True))

    def _start(self, position: int) -> int:
        """A word starts at the boundary before it; one of several in a release, at the frame before its first piece."""
        first = position == self._positions[0]
        return max(self._boundary, self._heard_until) if first else self._time(position - 1)

    def _time(self, position: int) -> int:
        """Milliseconds of received audio at an LM position."""
        time = (position - self._injected_frames) * FRAME_MS - self._lag_ms
        return min(max(time, 0), self._received_frames * FRAME_MS)

"""Assembles the text tokens of a delayed-streams model into words with times and confidence.

The model emits one token per frame: 3 is padding, 0 a boundary (the next word starts here), anything else a piece of
text. A word is complete when a 0 or 3 follows its pieces. Fast speech may skip the boundary, so one release can contain
several words; the first one of a stream can be empty.

Times equal those of Kyutai's production server: LM position k is at k / 12.5 - 0.40 s with the half-second model and
at k / 12.5 - 2.48 s with the 2.5 s model (`SERVER_DELAY_TOKENS`). Silence injected before a stream or by a flush does
not move the clock. Times are kept in whole milliseconds, which are exact.

The delay also decides which pieces are the first ones to be accepted. Kyutai's Rust server accepts them one position
before its delay in tokens. If the first piece of a word comes before that, the rest of the word is dropped, too.

The model may emit padding within a word: `4`, padding, `00`. Words are not delayed for that. The part after the padding
is a `Word` of its own that is `glued`, because its first piece has no leading space.

A model whose state was reset repeats the words of the frames that it transcribes again. A word is taken for a repeated
one if its middle lies before the end of the last released word, so none is lost or doubled unless the second
transcription moves a word by half its length.
"""

from __future__ import annotations

import math
from itertools import pairwise

from tympan.messages import EngineEvent, Partial, Word
from tympan.transcript.tokenizer import WORD_START, Tokenizer, text_of

BOUNDARY, PADDING = 0, 3
FRAME_MS = 80
EARLY_SECONDS = 0.10  # of models that are not in this table; to be calibrated on aligned speech, with the real weights
SERVER_DELAY_TOKENS = {0.5: 6, 2.5: 32}  # `asr_delay_in_tokens` of Kyutai's server, by the model's delay in seconds

WordEvents = list[EngineEvent]
"""`Word` and `Partial`; the caller may add others."""


class WordAssembler:
    """Assembles the words of one stream.

    Args:
        tokenizer: The pieces of the tokens.
        delay_seconds: The delay of the model.
        prefix_frames: Frames of silence before the audio of a stream.

    Attributes:
        quiet_frames: Consecutive frames without text up to the last one. A boundary announces text.
    """

    def __init__(self, tokenizer: Tokenizer, delay_seconds: float, prefix_frames: int = 0) -> None:
        self._tokenizer = tokenizer
        self._lag_ms = round(1000 * (delay_seconds - EARLY_SECONDS))
        if delay_seconds in SERVER_DELAY_TOKENS:
            self._lag_ms = FRAME_MS * (SERVER_DELAY_TOKENS[delay_seconds] - 1)
        self._unreliable_frames = int(1000 * delay_seconds / FRAME_MS) - 1
        self._prefix_frames = prefix_frames
        self._reliable_from = prefix_frames + self._unreliable_frames
        self._head_is_missing = False  # the first pieces of the current word were dropped
        self._after_space = True  # no text precedes the next piece, or a space that was released
        self.quiet_frames = 0
        self._position = 0
        self._received_frames = 0
        self._injected_frames = prefix_frames
        self._injecting_frames = 0
        self._boundary = 0  # this and the next three in milliseconds
        self._last_end = 0
        self._released_until = 0
        self._repeated_until = 0
        self._pieces: list[str] = []
        self._positions: list[int] = []
        self._log_probability: list[float] = []

    def step(self, token: int, probability: float, injected: bool = False) -> WordEvents:
        """Process the token of the next frame and return the events that it causes.

        Args:
            token: The token.
            probability: Its probability.
            injected: Whether the frame is not received audio: the silence of a flush, or before the stream.
        """
        self._advance(injected)
        if token == PADDING:
            self.quiet_frames += 1
            return self._release() if self._pieces else []
        if token == BOUNDARY:
            self.quiet_frames = 0
            self._head_is_missing = False
            events = self._release() if self._pieces else []
            self._boundary = self._time(self._position)
            return events
        piece = self._tokenizer.piece(token)
        if not piece:  # a control token such as </s>
            self.quiet_frames += 1
            return []
        self.quiet_frames = 0
        if not self._is_accepted(piece):
            return []
        self._pieces.append(piece)
        self._positions.append(self._position)
        self._log_probability.append(math.log(max(probability, 1e-9)))
        if self._is_repeated(self._position):
            return []
        text = text_of(self._pieces)
        glued = not (self._after_space or text.startswith(" "))
        return [Partial(text.strip(" \ufffd"), self._start(self._positions[0]) / 1000, glued)]

    def rewind(self, position: int) -> WordEvents:
        """Continue at an earlier frame after a reset of the model's state.

        Args:
            position: The frame of the next token, from 0. No silence of a flush lies between it and the last one.
        """
        withdrawn: WordEvents = [Partial("", self._released_until / 1000)] if self._pieces else []
        self._clear_pieces()
        self._received_frames -= self._position - position
        self._position = position
        self._reliable_from = self._position + self._unreliable_frames
        self._head_is_missing, self._after_space, self.quiet_frames = False, True, 0
        self._boundary = self._last_end = self._time(self._position)
        self._repeated_until = self._released_until
        return withdrawn

    def release(self) -> WordEvents:
        """Release the pending word at the end of a flush, and take the injected frames out of the clock."""
        events = self._release() if self._pieces else []
        self._injected_frames += self._injecting_frames
        self._injecting_frames = 0
        return events

    def _advance(self, injected: bool) -> None:
        self._position += 1
        if not injected:
            self._received_frames += 1
        elif self._position > self._prefix_frames:
            self._injecting_frames += 1

    def _is_accepted(self, piece: str) -> bool:
        """Return whether a piece belongs to the text: not too early, and not part of a word that began too early."""
        if self._position < self._reliable_from:
            self._head_is_missing = True
        elif piece.startswith(WORD_START):
            self._head_is_missing = False
        return not self._head_is_missing

    def _release(self) -> WordEvents:
        events: WordEvents = []
        for (first, last), (start, end) in self._words():
            text = text_of(self._pieces[first:last])
            glued = not (self._after_space or text.startswith(" "))
            text = text.strip()
            self._after_space = not text
            if not text:
                continue
            begin = max(start, self._last_end)
            self._last_end = max(begin, end)
            if begin + self._last_end < 2 * self._repeated_until:
                continue
            confidence = math.exp(sum(self._log_probability[first:last]) / (last - first))
            begin = max(begin, self._released_until)
            self._released_until = max(begin, end)
            events.append(Word(text, begin / 1000, self._released_until / 1000, round(confidence, 4), glued))
        was_shown = not self._is_repeated(self._positions[-1])
        self._clear_pieces()
        if events or was_shown:
            events.append(Partial("", self._released_until / 1000))
        return events

    def _is_repeated(self, position: int) -> bool:
        """Return whether a piece at this position belongs to words released before the reset."""
        return self._repeated_until > 0 and self._time(position) <= self._repeated_until

    def _clear_pieces(self) -> None:
        self._pieces, self._positions, self._log_probability = [], [], []

    def _words(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return the range of pieces and of times of each word; a piece with a space starts a word."""
        cuts = [index for index, piece in enumerate(self._pieces) if not index or piece.startswith(WORD_START)]
        times = [self._start(self._positions[cut]) for cut in cuts]
        cuts.append(len(self._pieces))
        times.append(self._time(self._position))
        return list(zip(pairwise(cuts), pairwise(times), strict=True))

    def _start(self, position: int) -> int:
        """Return the start of a word: the boundary before it, or the frame before its first piece if there is none."""
        first = position == self._positions[0]
        return max(self._boundary, self._last_end) if first else self._time(position - 1)

    def _time(self, position: int) -> int:
        """Return the milliseconds of received audio at an LM position."""
        time = (position - self._injected_frames) * FRAME_MS - self._lag_ms
        return min(max(time, 0), self._received_frames * FRAME_MS)

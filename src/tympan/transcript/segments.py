"""Segments: words up to a pause, short enough for a subtitle."""

from __future__ import annotations

from collections.abc import Sequence

from tympan.messages import Partial, Segment, Word
from tympan.transcript.joining import append_word, text_of_words

PAUSE_SECONDS = 0.7
LONGEST_SECONDS = 15.0


class Segmenter:
    """Groups the words of one stream into segments.

    Args:
        delay_seconds: Delay after which the engine releases a word: a pause can be noticed only after it.
    """

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self._delay = delay_seconds
        self._words: list[Word] = []
        self._speaking = False

    def partial(self, partial: Partial) -> None:
        """Keep the segment open while the text of a partial result is not empty."""
        self._speaking = bool(partial.text)

    def word(self, word: Word) -> Sequence[Segment]:
        """Add a word and return the segment before it, if it is complete."""
        closed: Sequence[Segment] = ()
        if self._words and not word.glued:
            pause = word.start - self._words[-1].end
            length = word.end - self._words[0].start
            if pause >= PAUSE_SECONDS or length > LONGEST_SECONDS:
                closed = self.close()
        append_word(self._words, word)
        return closed

    def progress(self, time: float) -> Sequence[Segment]:
        """Return the segment that a pause up to `time` completes, if any."""
        if self._words and not self._speaking and time - self._words[-1].end >= PAUSE_SECONDS + self._delay:
            return self.close()
        return ()

    def close(self) -> Sequence[Segment]:
        """Return the open segment, if any: at a flush, and at the end of a turn or stream."""
        if not self._words:
            return ()
        words, self._words = self._words, []
        return (Segment(text_of_words(words), words[0].start, words[-1].end),)

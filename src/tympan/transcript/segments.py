"""Words gathered into segments: what was said up to a pause, short enough for a subtitle."""

from __future__ import annotations

from collections.abc import Sequence

from tympan.messages import Partial, Segment, Word

PAUSE_SECONDS = 0.7
LONGEST_SECONDS = 15.0


class Segmenter:
    """Fed with every word of one stream and with the clock; answers with the segments that are complete.

    `delay_seconds` is how late the engine releases a word at the least: a pause counts only once a word in it would
    have been heard of.
    """

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self._delay = delay_seconds
        self._words: list[Word] = []
        self._speaking = False

    def partial(self, partial: Partial) -> None:
        """While something is heard that is no word yet, silence does not end the segment: this is not silence."""
        self._speaking = bool(partial.text)

    def word(self, word: Word) -> Sequence[Segment]:
        closed: Sequence[Segment] = ()
        if self._words:
            pause = word.start - self._words[-1].end
            length = word.end - self._words[0].start
            if pause >= PAUSE_SECONDS or length > LONGEST_SECONDS:
                closed = self.close()
        self._words.append(word)
        return closed

    def progress(self, time: float) -> Sequence[Segment]:
        if self._words and not self._speaking and time - self._words[-1].end >= PAUSE_SECONDS + self._delay:
            return self.close()
        return ()

    def close(self) -> Sequence[Segment]:
        """End the open segment now: at a flush, at the end of a turn, at the end of the stream."""
        if not self._words:
            return ()
        words, self._words = self._words, []
        return (Segment(" ".join(word.text for word in words), words[0].start, words[-1].end),)

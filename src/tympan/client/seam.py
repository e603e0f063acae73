"""Where one session of a stream ends and the next begins: every word is told once, and whole.

A server that restarts makes words of all the audio it has, and so of half a word at its end; before it does, it says
so. What it says from then on is kept back: the next session hears that audio again.
"""

from __future__ import annotations

from collections.abc import Collection

from tympan.messages import Event, Restarting, Segment, Turn, Word


class Seam:
    """`wanted` are the events that the stream's user gets."""

    def __init__(self, wanted: Collection[type[Event]]) -> None:
        self._tells_segments = Segment in wanted
        self._words: list[Word] = []  # told, and in no segment yet
        self._kept: list[Event] | None = None
        self._turns: list[Turn] = []  # of what is kept back

    def keeps_back(self, event: Event, whole: Event) -> bool:
        """Whether an event is not to be told yet; `whole` is the same with the time of the whole stream."""
        if isinstance(event, Restarting):
            self._kept = []
            return True
        if self._kept is None:
            return False
        self._kept.append(event)
        if isinstance(whole, Turn):
            self._turns.append(whole)
        return True

    def told(self, whole: Event) -> None:
        if self._tells_segments and isinstance(whole, Word):
            self._words.append(whole)
        elif isinstance(whole, Segment):
            self._words.clear()

    def release(self) -> list[Event]:
        """There is no next session: what was kept back is all that there will be."""
        kept, self._kept = self._kept or [], None
        self._turns.clear()
        return kept

    def close(self) -> list[Event]:
        """The next session has begun: what ends the old one's turn and segment, with the time of the whole stream."""
        events: list[Event] = [*self._turns]
        if self._words:
            text = " ".join(word.text for word in self._words)
            events.insert(0, Segment(text, self._words[0].start, self._words[-1].end))
        self._words.clear()
        self.release()
        return events

"""Events on their way to the reader of a stream, across restarts of the server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection

from tympan.messages import Event, Restarting, Segment, Turn, Word
from tympan.transcript.joining import append_word, text_of_words


class EventQueue:
    """A queue of events that ends once, normally or with an error.

    It is not bounded. A reader that lags behind costs a few hundred bytes per word; to stop reading the socket instead
    would make the server drop the stream of a program that sends everything before it reads.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self.ended = False

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)
        self._changed.set()

    def end(self, error: BaseException | None) -> None:
        """Add the end; only the first one counts."""
        if not self.ended:
            self.ended, self._error = True, error
        self._changed.set()

    def raise_error(self) -> None:
        """Raise the error that the queue ended with, if any."""
        if self._error is not None:
            raise self._error

    async def get(self) -> Event:
        """Return the next event; after the last one raise `StopAsyncIteration` or the error."""
        while not self._events:
            if self.ended:
                self.raise_error()
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


class RestartFilter:
    """Delivers every word once and whole when a server restarts.

    A restarting server transcribes all audio it has, which may end within a word, and sends `Restarting` before these
    last events. They are held back, since the next session transcribes the same audio again.

    Args:
        wanted: The events that the user of the stream receives.
    """

    def __init__(self, wanted: Collection[type[Event]]) -> None:
        self._delivers_segments = Segment in wanted
        self._words: list[Word] = []  # delivered, and not part of a segment yet
        self._held: list[Event] | None = None
        self._turns: list[Turn] = []  # of the events held back

    def hold(self, event: Event, whole: Event) -> bool:
        """Return whether an event is held back; `whole` is the same event in the time of the whole stream."""
        if isinstance(event, Restarting):
            self._held = []
            return True
        if self._held is None:
            return False
        self._held.append(event)
        if isinstance(whole, Turn):
            self._turns.append(whole)
        return True

    def delivered(self, whole: Event) -> None:
        """Note a delivered event, in the time of the whole stream."""
        if self._delivers_segments and isinstance(whole, Word):
            append_word(self._words, whole)
        elif isinstance(whole, Segment):
            self._words.clear()

    def release(self) -> list[Event]:
        """Return the events held back: there is no next session."""
        held, self._held = self._held or [], None
        self._turns.clear()
        return held

    def end_session(self) -> list[Event]:
        """Return the events that end the turn and segment of the old session, in the time of the whole stream."""
        events: list[Event] = [*self._turns]
        if self._words:
            events.insert(0, Segment(text_of_words(self._words), self._words[0].start, self._words[-1].end))
        self._words.clear()
        self.release()
        return events

"""When somebody has finished speaking, by the rules that clients of other services set for each stream.

`turns` decides by the operator's settings, once for all streams. This is for protocols in which the client chooses: an
endpoint after so much silence, or when the model is so sure that the turn is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from tympan.messages import Event, Partial, Vad, Word

SILENT_ABOVE = 0.5  # P(pause) at the shortest horizon
SHORTEST_SILENCE_SECONDS = 0.3  # less is between words; clients ask for 10 ms and mean "soon"
HOLDOFF_FRAMES = 12  # the model's pause heads are noise in the first second of a stream
TURN_HORIZON_SECONDS = 2.0
LATE_WORD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AfterSilence:
    """A turn ends after this much silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AfterPause:
    """A turn ends when P(pause) at the 2 s horizon rises above `threshold`, or `timeout_seconds` after its last word.

    Above `eager_threshold` it has perhaps ended.
    """

    threshold: float
    timeout_seconds: float
    eager_threshold: float | None = None


Rule = AfterSilence | AfterPause


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What happened to a turn at `time`. `probability` is the P(pause) that decided it."""

    kind: Literal["started", "paused", "resumed", "ended"]
    time: float
    probability: float = 0.0
    trigger: Literal["model", "silence", "timeout"] = "model"

    def end_of(self, words: Sequence[Word]) -> float:
        """Where a turn of these words ends that this has ended: a flush that brings them late makes it no longer."""
        return max([self.time, *(word.end for word in words[-1:])])


class Endpointer:
    """Fed with every event of one stream. After `paused` and `ended` it waits for `settle`, so that whoever asked for
    the turn's last words (a flush) has them before the next decision; words until then belong to the turn, unless they
    start after the decision (`overtaken`).
    """

    def __init__(self, rule: Rule | None, horizons: Sequence[float]) -> None:
        self.rule = rule
        self.speaking = False
        self.head = horizons.index(TURN_HORIZON_SECONDS) if TURN_HORIZON_SECONDS in horizons else len(horizons) - 1
        self._shortest = horizons[0] if horizons else 0.0
        self._waiting_for: Endpoint | None = None
        self._paused = False
        self._fell = True
        self._frames = 0
        self._now = 0.0
        self._heard_at = 0.0
        self._silent_since: float | None = None

    def hear(self, event: Event) -> Iterator[Endpoint]:
        if _is_speech(event):
            yield from self._on_speech(event.start)
        elif isinstance(event, Vad):
            yield from self._on_frame(event)

    def overtaken(self, event: Event) -> Endpoint | None:
        """The decision that is settled by this word's starting after it; call it before `hear`.

        So it goes where the engine is behind: the flush waits its turn behind the audio that came since, and that
        audio brings the turn's last words itself, and then the next turn's first.
        """
        decision = self._waiting_for
        if decision is None or not _is_speech(event) or event.start < decision.time:
            return None
        self.settle(decision)
        return decision

    def settle(self, decision: Endpoint) -> bool:
        """The last words of what has paused or ended are there.

        False if nobody waits for this decision any more: somebody else ended the turn before they came.
        """
        if decision is not self._waiting_for:
            return False
        if decision.kind == "ended":
            self._close()
        self._waiting_for = None
        return True

    def end(self) -> None:
        """Somebody else ended the turn, if one is open."""
        self._fell = self._fell and not self.speaking
        self._close()
        self._waiting_for = None

    def _close(self) -> None:
        self.speaking = self._paused = False

    def _on_speech(self, start: float) -> Iterator[Endpoint]:
        self._heard_at = self._now
        if self._waiting_for is not None:
            return
        if not self.speaking:
            self.speaking = True
            yield Endpoint("started", start)
        elif self._paused:
            self._paused = False
            yield Endpoint("resumed", start)

    def _on_frame(self, vad: Vad) -> Iterator[Endpoint]:
        self._frames += 1
        self._now = vad.time
        if vad.pauses[0] < SILENT_ABOVE:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = vad.time - SILENT_ABOVE * self._shortest
        decision = self._decide(vad.pauses[self.head])
        if decision is not None and self.speaking and self._may_decide(decision):
            self._paused = decision.kind == "paused"
            self._fell = self._paused  # what falls before this is settled is the next turn's
            self._waiting_for = decision
            yield decision

    def _may_decide(self, decision: Endpoint) -> bool:
        """An end does not wait for what was to be told of a pause before it."""
        waiting = self._waiting_for
        return waiting is None or (waiting.kind == "paused" and decision.kind == "ended")

    def _decide(self, pause: float) -> Endpoint | None:
        now = self._now
        match self.rule:
            case AfterSilence(seconds):
                silence = 0.0 if self._silent_since is None else now - self._silent_since
                if silence >= max(seconds, SHORTEST_SILENCE_SECONDS):
                    return Endpoint("ended", now, pause, "silence")
            case AfterPause(threshold, timeout_seconds, eager_threshold):
                self._fell = self._fell or pause < threshold
                # A word that arrives late, into a pause, opens a turn that no rise would ever close.
                may_end = self._fell or now - self._heard_at >= LATE_WORD_SECONDS
                if self._frames > HOLDOFF_FRAMES and may_end and pause > threshold:
                    return Endpoint("ended", now, pause)
                if now - self._heard_at >= timeout_seconds:
                    return Endpoint("ended", now, pause, "timeout")
                eager = eager_threshold is not None and self._frames > HOLDOFF_FRAMES and pause > eager_threshold
                if eager and not self._paused:
                    return Endpoint("paused", now, pause)
        return None


def _is_speech(event: Event) -> TypeGuard[Word | Partial]:
    return isinstance(event, Word) or (isinstance(event, Partial) and bool(event.text))

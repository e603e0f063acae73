"""Turn detection: when a speaker starts and ends a turn, from words and the engine's pause probabilities.

A turn starts with a word. How it ends is a `Rule`: after silence, or when the model expects a pause. `TurnDetector`
applies the operator's settings to every stream. `Endpointer` serves protocols whose clients choose the rule.

The model expects pauses between digits, whose text it holds back until the number is complete. A turn therefore does
not end while there is speech by energy, for at most `LONGEST_HOLD_SECONDS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from tympan.config import TurnSettings
from tympan.messages import Event, Partial, Progress, Turn, Vad, Word

HORIZON_SECONDS = 2.0
LATE_WORD_SECONDS = 1.0
SILENT_ABOVE = 0.5  # pause probability of the shortest horizon
SHORTEST_SILENCE_SECONDS = 0.3  # shorter pauses occur between words; clients request 10 ms and mean "soon"
HOLDOFF_FRAMES = 12  # pause probabilities are noise in the first second of a stream
LONGEST_HOLD_SECONDS = 2.0  # music and noise have energy, too


@dataclass(frozen=True, slots=True)
class AfterSilence:
    """A turn ends after this much silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AfterPause:
    """A turn ends when the pause probability of the 2 s horizon rises above a threshold.

    Attributes:
        threshold: The turn ends above this probability.
        timeout_seconds: The turn ends this long after its last word in any case.
        eager_threshold: Above this probability the turn may have ended (`paused`).
        resume_threshold: After a turn, the probability must fall below this before the next turn can end; by default
            `threshold`.
        holdoff_frames: The first frames of a stream, whose probabilities are ignored.
    """

    threshold: float
    timeout_seconds: float
    eager_threshold: float | None = None
    resume_threshold: float | None = None
    holdoff_frames: int = HOLDOFF_FRAMES


Rule = AfterSilence | AfterPause


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A change of a turn.

    Attributes:
        kind: What happened; `paused` means that the turn may have ended.
        time: When, in seconds of the stream.
        probability: The pause probability that decided it.
        trigger: Which part of the rule decided it.
    """

    kind: Literal["started", "paused", "resumed", "ended"]
    time: float
    probability: float = 0.0
    trigger: Literal["model", "silence", "timeout"] = "model"

    def end_of(self, words: Sequence[Word]) -> float:
        """Return the end of a turn with these words: a word that a flush released may end after the decision."""
        return max([self.time, *(word.end for word in words[-1:])])


class Endpointer:
    """Detects the turns of one stream by a rule.

    After `paused` and `ended` the protocol flushes the engine for the last words of the turn, and calls `confirm` when
    they have arrived. Until then words belong to the turn, unless they start after the decision (`overtaken`).

    Args:
        rule: How a turn ends; `None` leaves it to the client.
        horizons: The horizons of the pause probabilities in seconds, ascending.
    """

    def __init__(self, rule: Rule | None, horizons: Sequence[float]) -> None:
        self.rule = rule
        self.speaking = False
        self.head = horizons.index(HORIZON_SECONDS) if HORIZON_SECONDS in horizons else len(horizons) - 1
        self._shortest = horizons[0] if horizons else 0.0
        self._pending: Endpoint | None = None  # a decision that is not confirmed
        self._paused = False
        self._fell = True  # the probability, since the last turn
        self._frames = 0
        self._now = 0.0
        self._last_word_at = 0.0
        self._silent_since: float | None = None
        self._held_since: float | None = None  # time of the decision that speech by energy holds back

    def on_event(self, event: Event) -> Sequence[Endpoint]:
        """Process an event of the stream and return the changes that it causes."""
        if isinstance(event, Vad):
            return self.on_frame(event.time, event.pauses, speech=event.speech)
        return self._on_speech(event.start) if _is_speech(event) else ()

    def on_frame(self, time: float, pauses: Sequence[float], *, speech: bool = False) -> Sequence[Endpoint]:
        """Process the pause probabilities of the frame that ends at `time`; `speech` is that of `Vad`."""
        self._frames += 1
        self._now = time
        if pauses[0] < SILENT_ABOVE:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time - SILENT_ABOVE * self._shortest
        decision = self._decide(pauses[self.head])
        if decision is None or not self.speaking or not self._may_decide(decision):
            self._held_since = None
            return ()
        if self._is_held(decision, speech=speech):
            return ()
        self._paused = decision.kind == "paused"
        self._fell = self._paused  # a fall before this is confirmed belongs to the next turn
        self._pending = decision
        return (decision,)

    def overtaken(self, event: Event) -> Endpoint | None:
        """Return and settle the pending decision if this word starts after it; call this before `on_event`.

        It happens if the engine is behind: the flush waits behind newer audio, which brings the last words of the turn
        itself, and then the first ones of the next turn.
        """
        decision = self._pending
        if decision is None or not _is_speech(event) or event.start < decision.time:
            return None
        self.confirm(decision)
        return decision

    def confirm(self, decision: Endpoint) -> bool:
        """Confirm that the last words of a paused or ended turn have arrived.

        Returns:
            False if the decision is no longer pending, because the turn was ended before.
        """
        if decision is not self._pending:
            return False
        if decision.kind == "ended":
            self._close()
        self._pending = None
        return True

    def end(self) -> None:
        """End an open turn at the client's request."""
        self._fell = self._fell and not self.speaking
        self._close()
        self._pending = None

    def _close(self) -> None:
        self.speaking = self._paused = False

    def _on_speech(self, start: float) -> Sequence[Endpoint]:
        self._last_word_at = self._now
        if self._pending is not None:
            return ()
        if not self.speaking:
            self.speaking = True
            return (Endpoint("started", start),)
        if self._paused:
            self._paused = False
            return (Endpoint("resumed", start),)
        return ()

    def _may_decide(self, decision: Endpoint) -> bool:
        """Return whether nothing is pending, or only a pause, for which the end of the turn does not wait."""
        pending = self._pending
        return pending is None or (pending.kind == "paused" and decision.kind == "ended")

    def _is_held(self, decision: Endpoint, *, speech: bool) -> bool:
        """Return whether a decision waits because the speaker still speaks by energy."""
        if not speech or decision.trigger == "timeout":
            self._held_since = None
            return False
        if self._held_since is None:
            self._held_since = decision.time
        return decision.time - self._held_since < LONGEST_HOLD_SECONDS

    def _decide(self, pause: float) -> Endpoint | None:
        now, rule = self._now, self.rule
        if isinstance(rule, AfterSilence):
            silence = 0.0 if self._silent_since is None else now - self._silent_since
            if silence >= max(rule.seconds, SHORTEST_SILENCE_SECONDS):
                return Endpoint("ended", now, pause, "silence")
        elif rule is not None:
            resume = rule.threshold if rule.resume_threshold is None else rule.resume_threshold
            self._fell = self._fell or pause < resume
            reliable = self._frames > rule.holdoff_frames
            # A late word, which arrives within a pause, opens a turn that no rise would ever end.
            may_end = self._fell or now - self._last_word_at >= LATE_WORD_SECONDS
            if reliable and may_end and pause > rule.threshold:
                return Endpoint("ended", now, pause)
            if now - self._last_word_at >= rule.timeout_seconds:
                return Endpoint("ended", now, pause, "timeout")
            eager = rule.eager_threshold
            if eager is not None and reliable and pause > eager and not self._paused:
                return Endpoint("paused", now, pause)
        return None


class TurnDetector:
    """Detects the turns of one stream by the operator's settings, as `Turn` events."""

    def __init__(self, settings: TurnSettings, pause_horizons: tuple[float, ...]) -> None:
        rule = AfterPause(
            settings.turn_end,
            math.inf,
            resume_threshold=settings.turn_resume,
            holdoff_frames=settings.turn_holdoff_steps,
        )
        self._endpointer = Endpointer(rule, pause_horizons)
        self._now = 0.0

    def word(self, word: Word) -> Sequence[Turn]:
        """Process a word and return the turn that it starts, if any."""
        return [Turn("started", endpoint.time, 0.0) for endpoint in self._endpointer.on_event(word)]

    def progress(self, progress: Progress) -> Sequence[Turn]:
        """Process a frame and return the turn that it ends, if any."""
        self._now = progress.time
        if not progress.pauses:
            return ()
        endpoints = self._endpointer.on_frame(progress.time, progress.pauses, speech=progress.speech)
        if not endpoints:
            return ()
        self._endpointer.confirm(endpoints[0])
        return (Turn("ended", progress.time, endpoints[0].probability),)

    def finish(self) -> Sequence[Turn]:
        """End an open turn with the stream."""
        if not self._endpointer.speaking:
            return ()
        self._endpointer.end()
        return (Turn("ended", self._now, 1.0),)


def _is_speech(event: Event) -> TypeGuard[Word | Partial]:
    return isinstance(event, Word) or (isinstance(event, Partial) and bool(event.text))

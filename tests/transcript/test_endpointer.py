"""Turns by a client's own rule: when they start, pause, go on and end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.messages import Event, Partial, Vad, Word
from tympan.transcript.turns import (
    HOLDOFF_FRAMES,
    LONGEST_HOLD_SECONDS,
    AfterPause,
    AfterSilence,
    Endpoint,
    Endpointer,
    Rule,
)

HORIZONS = (0.5, 1.0, 2.0, 3.0)
FRAME = 0.08
SURE = AfterPause(threshold=0.7, timeout_seconds=3.0, eager_threshold=0.4)


class Stream:
    """Frames of some pause probability, and words, with the decisions they led to."""

    def __init__(self, rule: Rule | None) -> None:
        self.endpointer = Endpointer(rule, HORIZONS)
        self.decisions: list[Endpoint] = []
        self.frame = 0

    def frames(self, count: int, pause: float, *, speech: bool = False) -> None:
        """All horizons alike."""
        for _ in range(count):
            self.frame += 1
            self.hear(Vad(round(self.frame * FRAME, 2), (pause,) * 4, speech))

    def word(self, text: str = "hello") -> None:
        now = self.frame * FRAME
        self.hear(Word(text, now, now, 1.0))

    def hear(self, event: Event) -> None:
        self.decisions += self.endpointer.on_event(event)

    def confirm(self) -> bool:
        """The words of the last decision are there."""
        return bool(self.decisions) and self.endpointer.confirm(self.decisions[-1])

    @property
    def kinds(self) -> list[str]:
        return [decision.kind for decision in self.decisions]


def speaking(rule: Rule | None) -> Stream:
    """Past the first second, in which the model is not believed, and in the middle of a turn."""
    stream = Stream(rule)
    stream.frames(HOLDOFF_FRAMES + 1, 0.0)
    stream.word()
    return stream


@pytest.mark.parametrize("event", [Word("hello", 0.4, 0.8, 1.0), Partial("hel", 0.4)])
def test_turn_starts_with_speech(event: Event) -> None:
    stream = Stream(None)
    for each in (Partial("", 0.0), event, event):
        stream.hear(each)
    assert stream.decisions == [Endpoint("started", 0.4)]


@pytest.mark.parametrize(("seconds", "frames"), [(0.01, 1), (0.5, 4), (1.0, 10)])
def test_silence_ends_a_turn(seconds: float, frames: int) -> None:
    stream = speaking(AfterSilence(seconds))
    stream.frames(40, 0.1)
    assert stream.kinds == ["started"]
    # A frame whose half second of pause is half over has been silent for a quarter of a second.
    stream.frames(frames, 0.9)
    assert stream.kinds == ["started"]
    stream.frames(2, 0.9)
    assert stream.kinds == ["started", "ended"]
    assert stream.decisions[-1].trigger == "silence"


def test_speech_resets_the_silence() -> None:
    stream = speaking(AfterSilence(1.0))
    for _ in range(4):
        stream.frames(8, 0.9)
        stream.frames(1, 0.1)
    assert stream.kinds == ["started"]


def test_pause_resume_end() -> None:
    stream = speaking(SURE)
    stream.frames(3, 0.5)
    assert stream.kinds == ["started", "paused"]
    assert stream.confirm()
    stream.frames(3, 0.5)  # it has been told
    stream.word("again")
    stream.frames(3, 0.1)
    stream.frames(1, 0.8)
    assert stream.kinds == ["started", "paused", "resumed", "ended"]
    assert stream.decisions[-1].trigger == "model"
    assert stream.decisions[-1].probability == 0.8


def test_pending_decision_blocks_others() -> None:
    stream = speaking(SURE)
    stream.frames(1, 0.9)
    stream.word("late")
    stream.frames(5, 0.9)
    assert stream.kinds == ["started", "ended"]
    assert stream.confirm()
    assert not stream.confirm()
    stream.frames(1, 0.1)
    stream.word("new")
    assert stream.kinds == ["started", "ended", "started"]


def test_word_after_the_decision_settles_it() -> None:
    """As it goes where a flush is answered after the audio that came since."""
    stream = speaking(SURE)
    stream.frames(1, 0.9)
    ended = stream.decisions[-1]
    for late in (Vad(9.0, (0.9,) * 4), Word("late", ended.time - 0.2, ended.time + 0.1, 1.0), Partial("", 9.0)):
        assert stream.endpointer.overtaken(late) is None
        stream.hear(late)
    stream.frames(3, 0.1)
    assert stream.endpointer.overtaken(Partial("ne", ended.time)) is ended
    stream.hear(Partial("ne", ended.time))
    stream.frames(1, 0.9)
    assert stream.kinds == ["started", "ended", "started", "ended"]
    assert not stream.endpointer.confirm(ended), "the flush has nothing more to say"


def test_end_does_not_wait_for_a_pause() -> None:
    stream = speaking(SURE)
    stream.frames(1, 0.5)
    paused = stream.decisions[-1]
    stream.frames(1, 0.9)
    assert stream.kinds == ["started", "paused", "ended"]
    assert not stream.endpointer.confirm(paused)
    assert stream.confirm()


def test_holdoff() -> None:
    stream = Stream(SURE)
    stream.word()
    stream.frames(HOLDOFF_FRAMES, 1.0)
    assert stream.kinds == ["started"]
    stream.frames(1, 1.0)
    assert stream.kinds == ["started", "ended"]


def test_late_word_in_a_pause() -> None:
    stream = speaking(AfterPause(0.7, 30.0))
    stream.frames(1, 0.9)
    assert stream.confirm()
    stream.word("late")
    stream.frames(11, 0.9)
    assert stream.kinds == ["started", "ended", "started"]
    stream.frames(2, 0.9)
    assert stream.kinds == ["started", "ended", "started", "ended"]


def test_timeout() -> None:
    stream = speaking(SURE)
    stream.frames(37, 0.1)
    assert stream.kinds == ["started"]
    stream.frames(2, 0.1)
    assert (stream.kinds[-1], stream.decisions[-1].trigger) == ("ended", "timeout")


def test_end() -> None:
    stream = speaking(SURE)
    stream.frames(1, 0.5)
    stream.endpointer.end()
    assert not stream.confirm()
    stream.frames(1, 0.1)
    stream.word()
    assert stream.kinds == ["started", "paused", "started"]


def test_older_decision_does_not_settle() -> None:
    stream = speaking(SURE)
    stream.frames(1, 0.9)
    older = stream.decisions[-1]
    stream.endpointer.end()
    stream.frames(1, 0.1)
    stream.word()
    stream.frames(1, 0.9)
    assert stream.kinds == ["started", "ended", "started", "ended"]
    assert not stream.endpointer.confirm(older)
    assert stream.confirm()


def test_no_rule() -> None:
    stream = speaking(None)
    stream.frames(500, 1.0)
    assert stream.kinds == ["started"]


ALLOWED = {
    None: {"started"},
    "started": {"paused", "ended"},
    "paused": {"resumed", "ended"},
    "resumed": {"paused", "ended"},
    "ended": {"started"},
}
STEPS = st.lists(st.sampled_from(["word", "settle"]) | st.floats(0, 1), max_size=120)


@given(rule=st.sampled_from([SURE, AfterSilence(0.5), AfterPause(0.5, 2.0)]), steps=STEPS)
def test_any_sequence(rule: Rule, steps: Iterable[str | float]) -> None:
    stream = Stream(rule)
    for step in steps:
        if step == "word":
            stream.word()
        elif step == "settle":
            stream.confirm()
        else:
            stream.frames(1, float(step))
    last = None
    for kind in stream.kinds:
        assert kind in ALLOWED[last]
        last = kind


@pytest.mark.parametrize("rule", [SURE, AfterSilence(0.5)])
def test_turn_does_not_end_during_speech(rule: Rule) -> None:
    """The model expects pauses while digits are spoken; no text comes until the number is complete."""
    stream = speaking(rule)
    for _ in range(3):  # three digits
        stream.frames(8, 0.9, speech=True)
        stream.frames(2, 0.1, speech=True)
    assert set(stream.kinds) == {"started"}
    stream.frames(1, 0.9, speech=True)
    stream.frames(8, 0.9)
    assert stream.kinds == ["started", "ended"]
    assert stream.confirm()


def test_noise_does_not_keep_a_turn_open() -> None:
    stream = speaking(AfterPause(threshold=0.7, timeout_seconds=9.0))
    held = round(LONGEST_HOLD_SECONDS / FRAME)
    stream.frames(held, 0.9, speech=True)
    assert stream.kinds == ["started"]
    stream.frames(1, 0.9, speech=True)
    assert stream.kinds == ["started", "ended"]


def test_timeout_ends_a_turn_during_speech() -> None:
    stream = speaking(AfterPause(threshold=0.7, timeout_seconds=1.0))
    stream.frames(13, 0.1, speech=True)
    assert [(each.kind, each.trigger) for each in stream.decisions] == [("started", "model"), ("ended", "timeout")]

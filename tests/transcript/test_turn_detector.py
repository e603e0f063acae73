"""Turns from pause probabilities and words."""

from __future__ import annotations

from tympan.config import TurnSettings
from tympan.messages import Progress, Turn, Word
from tympan.transcript.turns import TurnDetector

HORIZONS = (0.5, 1.0, 2.0, 3.0)


def detect(*steps: float | str, holdoff: int = 0) -> list[Turn]:
    """A number is a step with that P(pause) at the 2 s horizon; a string is a word."""
    detector = TurnDetector(TurnSettings(turn_holdoff_steps=holdoff), HORIZONS)
    turns: list[Turn] = []
    now = 0.0
    for step in steps:
        if isinstance(step, str):
            turns += detector.word(Word(step, now, now, 1.0))
        else:
            now = round(now + 0.08, 2)
            turns += detector.progress(Progress(now, (0.0, 0.0, step, 0.0)))
    return turns


def states(*steps: float | str, holdoff: int = 0) -> list[str]:
    return [turn.state for turn in detect(*steps, holdoff=holdoff)]


def test_turn() -> None:
    turns = detect(0.1, "hi", 0.1, 0.7)
    assert turns == [Turn("started", 0.08, 0.0), Turn("ended", 0.24, 0.7)]


def test_silence() -> None:
    assert states(0.9, 0.9, 0.1, 0.9) == []


def test_turn_ends_once() -> None:
    assert states("hi", 0.1, 0.7, 0.5, 0.7, 0.9) == ["started", "ended"]


def test_between_the_thresholds() -> None:
    assert states("hi", 0.1, 0.55, 0.6) == ["started"]


def test_next_turn_ends_after_a_fall() -> None:
    steps = ["hi", 0.1, 0.7, "you", 0.65, 0.7]
    assert states(*steps) == ["started", "ended", "started"]
    assert states(*steps, 0.3, 0.7) == ["started", "ended", "started", "ended"]


def test_late_word() -> None:
    late = ["hi", 0.1, 0.7, "you", *[0.9] * 13]
    assert states(*late) == ["started", "ended", "started", "ended"]


def test_first_frames_are_ignored() -> None:
    assert states("hi", *[0.9] * 12, holdoff=12) == ["started"]
    assert states("hi", *[0.9] * 13, holdoff=12) == ["started", "ended"]


def test_finish_ends_the_turn() -> None:
    detector = TurnDetector(TurnSettings(), HORIZONS)
    assert list(detector.finish()) == []
    list(detector.word(Word("hi", 0.0, 0.1, 1.0)))
    assert [turn.state for turn in detector.finish()] == ["ended"]
    assert list(detector.finish()) == []


def test_turn_does_not_end_during_speech() -> None:
    detector = TurnDetector(TurnSettings(turn_holdoff_steps=0), HORIZONS)
    list(detector.word(Word("one", 0.0, 0.1, 1.0)))
    speaking = [detector.progress(Progress(0.08 * frame, (0.9,) * 4, speech=True)) for frame in range(1, 10)]
    assert not any(speaking)
    assert [turn.state for turn in detector.progress(Progress(0.8, (0.9,) * 4))] == ["ended"]

"""The windows of Whisper's recognizer over a model that reads numbers: no word is lost or repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tympan.engine.embedded.whisper import recognizer as windows
from tympan.engine.embedded.whisper.recognizer import SAMPLE_RATE, WhisperRecognizer
from tympan.engine.embedded.whisper.words import Guess, Hypothesis
from tympan.messages import EngineEvent, Partial, Progress, Samples, Word

FRAME_SAMPLES = 1_280
STEP = 1 / 32_768  # word number n has the level n * STEP
UNSTABLE_SECONDS = 0.6  # at the end of a window, where every hypothesis is another one
HALF = 0.5  # of a word that must be in the window


class EnergyVoice:
    """Finds speech where samples are not zero."""

    def __init__(self) -> None:
        self.silence_seconds = self.speech_seconds = 0.0

    def push(self, samples: Samples) -> bool:
        loud = np.flatnonzero(samples)
        seconds = len(samples) / SAMPLE_RATE
        if not len(loud):
            self.silence_seconds += seconds
            return False
        self.silence_seconds = (len(samples) - 1 - int(loud[-1])) / SAMPLE_RATE
        self.speech_seconds += seconds
        return True

    def start_count(self) -> None:
        self.speech_seconds = 0.0


@dataclass
class NumberModel:
    """Reads the numbers of a window. Words at its end are wrong, and differently each time.

    Attributes:
        lengths: Samples of each number; other sounds are no words.
        doubtful: Whether each hypothesis, in turn, is not credible if it has such words.
        decoded: Seconds of the windows.
    """

    lengths: dict[int, int]
    doubtful: Sequence[bool] = (False,)
    decoded: list[float] = field(default_factory=list)

    def decode(self, samples: Samples, prefix: Sequence[int], known_seconds: float, language: str) -> Hypothesis:
        seconds = len(samples) / SAMPLE_RATE
        assert 0 <= known_seconds <= seconds + 0.1
        self.decoded.append(seconds)
        levels = np.round(samples / STEP).astype(int)
        words, unstable = [], False
        for number in sorted(set(levels[levels > 0].tolist())):
            at = np.flatnonzero(levels == number)
            if number in prefix or len(at) < HALF * self.lengths.get(number, np.inf):
                continue
            start, end = at[0] / SAMPLE_RATE, (at[-1] + 1) / SAMPLE_RATE
            is_unstable = seconds - end < UNSTABLE_SECONDS and end + windows.AFTER_SPEECH_SECONDS > seconds + 1e-6
            unstable |= is_unstable
            text = f"{number}?{len(self.decoded)}" if is_unstable else str(number)
            words.append(Guess(text, (number,), start, end, 0.9))
        credible = not (unstable and self.doubtful[len(self.decoded) % len(self.doubtful)])
        return Hypothesis(tuple(words), credible, -0.1, "en")


@dataclass(frozen=True)
class Speech:
    """Numbers from 1 on, with the silence behind each, in samples."""

    samples: Samples
    lengths: dict[int, int]


def speech(words: Sequence[tuple[float, float]], offset: int = 0) -> Speech:
    """Return audio of words with a duration and a silence after it, in seconds."""
    parts, lengths = [np.zeros(offset, np.float32)], {}
    for number, (seconds, silence) in enumerate(words, 1):
        lengths[number] = round(seconds * SAMPLE_RATE)
        parts += [np.full(lengths[number], number * STEP), np.zeros(round(silence * SAMPLE_RATE))]
    parts.append(np.zeros(SAMPLE_RATE))
    samples = np.concatenate(parts).astype(np.float32)
    return Speech(np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)), lengths)


def recognize(
    spoken: Speech,
    model: NumberModel,
    waiting: Sequence[int] = (0,),
    flush: Callable[[int], bool] = lambda frame: False,
) -> list[EngineEvent]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "VoiceDetector", EnergyVoice)
        recognizer = WhisperRecognizer(model)
        events: list[EngineEvent] = []
        pcm = np.round(spoken.samples / STEP).astype("<i2").reshape(-1, FRAME_SAMPLES)
        for index, frame in enumerate(pcm):
            events += recognizer.push(frame.tobytes(), waiting[index % len(waiting)])
            if flush(index):
                events += recognizer.flush()
        return events + recognizer.flush()


def words_of(events: Sequence[EngineEvent]) -> list[Word]:
    return [event for event in events if isinstance(event, Word)]


def texts_of(events: Sequence[EngineEvent]) -> list[str]:
    return [word.text for word in words_of(events)]


seconds = st.floats(0.2, 0.9)
silence = st.sampled_from((0.0, 0.0, 0.1, 0.3, 0.45, 0.6, 1.0, 4.0))
spoken_words = st.lists(st.tuples(seconds, silence), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    spoken_words,
    st.integers(0, 3 * FRAME_SAMPLES),
    st.lists(st.integers(0, 60), min_size=1, max_size=7),
    st.lists(st.booleans(), min_size=2, max_size=5).filter(lambda doubtful: sum(doubtful) * 2 <= len(doubtful)),
)
def test_every_word_is_released_once(
    words: list[tuple[float, float]], offset: int, waiting: list[int], doubtful: list[bool]
) -> None:
    """Wherever frames and windows are cut, however far the process is behind, and whatever the model is unsure of."""
    spoken = speech(words, offset)
    model = NumberModel(spoken.lengths, doubtful)
    events = recognize(spoken, model, waiting)

    assert texts_of(events) == [str(number) for number in spoken.lengths]
    assert all(earlier.end <= later.start for earlier, later in pairwise(words_of(events)))
    partials = [event.text for event in events if isinstance(event, Partial)]
    assert not partials or partials[-1] == ""
    assert all(before != after for before, after in pairwise(partials))
    assert len([event for event in events if isinstance(event, Progress)]) == len(spoken.samples) // FRAME_SAMPLES
    assert max(model.decoded) <= windows.LONGEST_WINDOW_SECONDS + windows.LONGEST_STEP_SECONDS


@pytest.mark.parametrize("waiting", [13, 60])
@pytest.mark.parametrize("doubtful", ["01", "10", "1100", "0110", "10010"])
def test_rejected_hypothesis_loses_no_word_of_long_speech(doubtful: str, waiting: int) -> None:
    """The window is shortened after up to two of them, while the process is behind."""
    for seconds in (0.2, 0.5, 0.9):
        spoken = speech([(seconds, 0.0)] * 40)
        model = NumberModel(spoken.lengths, [digit == "1" for digit in doubtful])
        assert texts_of(recognize(spoken, model, [waiting])) == [str(number) for number in spoken.lengths]
        assert max(model.decoded) <= windows.LONGEST_WINDOW_SECONDS + windows.LONGEST_STEP_SECONDS


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 1.2)), min_size=1, max_size=12), st.integers(0, 1_000))
def test_flush_between_words_loses_none(words: list[tuple[float, float]], offset: int) -> None:
    spoken = speech(words, offset)
    frames = spoken.samples.reshape(-1, FRAME_SAMPLES)
    last = [index for index, frame in enumerate(frames) if not frame.any() and (index == 0 or frames[index - 1].any())]
    events = recognize(spoken, NumberModel(spoken.lengths), flush=lambda frame: frame in last)

    numbers = [text.partition("?")[0] for text in texts_of(events)]  # the flush takes the end of a window as it is
    assert numbers == [str(number) for number in spoken.lengths]


def test_flush_in_every_frame_loses_no_beginning() -> None:
    """A flush with too little speech for a word keeps it for the next window."""
    spoken = speech([(0.12, 0.0), (0.4, 0.5)])
    events = recognize(spoken, NumberModel(spoken.lengths), flush=lambda frame: frame == 0)
    assert texts_of(events) == ["1", "2"]


def test_words_are_released_while_the_speaker_talks() -> None:
    spoken = speech([(0.3, 0.0)] * 60)
    events = recognize(spoken, NumberModel(spoken.lengths))

    clock, behind = 0.0, []
    for event in events:
        if isinstance(event, Progress):
            clock = event.time
        elif isinstance(event, Word):
            behind.append(clock - event.end)
    assert max(behind) < 1.6


def test_stream_that_is_behind_is_recognized_less_often() -> None:
    spoken = speech([(0.3, 0.0)] * 60)
    counts = []
    for waiting in (0, 10, 50):
        model = NumberModel(spoken.lengths)
        recognize(spoken, model, [waiting])
        counts.append(len(model.decoded))
    often, less, least = counts
    assert often > 30
    assert often > 2 * less > 4 * least > 0


def test_word_before_a_long_hum_is_not_lost() -> None:
    """The window is shortened while its last word, seconds back, is pending."""
    spoken = speech([(0.4, 0.0), (14.0, 0.0), (0.4, 1.0)])
    model = NumberModel({number: length for number, length in spoken.lengths.items() if number != 2})
    assert texts_of(recognize(spoken, model)) == ["1", "3"]


def test_silence_decodes_nothing() -> None:
    model = NumberModel({})
    events = recognize(Speech(np.zeros(60 * SAMPLE_RATE, np.float32), {}), model)
    assert model.decoded == []
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last == Progress(60.0, (1.0, 1.0, 1.0, 1.0))


def test_several_doubtful_hypotheses_hold_back_the_next() -> None:
    """Of another language one hypothesis in ten is probable by chance."""

    class ForeignModel(NumberModel):
        def decode(self, samples: Samples, prefix: Sequence[int], known_seconds: float, language: str) -> Hypothesis:
            found = super().decode(samples, prefix, known_seconds, language)
            certainty = -0.8 if len(self.decoded) % 5 == 0 else -1.9
            return Hypothesis(found.words, True, certainty, "en")

    spoken = speech([(0.3, 0.0)] * 60)
    assert recognize(spoken, ForeignModel(spoken.lengths)) == [
        event for event in recognize(spoken, ForeignModel(spoken.lengths)) if isinstance(event, Progress)
    ]

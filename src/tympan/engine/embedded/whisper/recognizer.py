"""Streaming recognition with Whisper: frames of 80 ms in, words with times and confidence out.

Whisper recognizes windows, not streams. A window begins with speech, grows while the speaker talks, and ends at a
pause; silence is in no window. A window that has grown by 0.4 s is recognized again, with the released words as the
beginning of the hypothesis. A word is released, except for the last one,

- if two hypotheses in a row have it (LocalAgreement), or
- if it lies well behind the end of the audio,

and otherwise at the end of the window. A hypothesis releases nothing if it is not credible or the model is not certain
of it, or if the model was not certain of several hypotheses before it, since then they are another language. The more
frames wait, the less often a window is recognized, unless its last hypothesis was rejected: the next may be better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from tympan.audio.activity import pauses_from_silence
from tympan.audio.samples import as_float
from tympan.engine.embedded.whisper.voice import VoiceDetector
from tympan.engine.embedded.whisper.words import Guess, Hypothesis
from tympan.messages import EngineEvent, Partial, Progress, Samples, Word

SAMPLE_RATE = 16_000
FRAME_SECONDS = 0.08
PAUSE_HORIZONS = (0.5, 1.0, 2.0, 3.0)

BEFORE_SPEECH_SECONDS = 0.3  # audio before the first speech that belongs to the window
AFTER_SPEECH_SECONDS = 0.2
SHORTEST_SPEECH_SECONDS = 0.15
PAUSE_SECONDS = 0.5  # silence that ends a window
STEP_SECONDS = 0.4  # of new speech, after which a window is recognized again; the audio that waits is added to it
LONGEST_STEP_SECONDS = 5.0
SETTLED_SECONDS = 0.9  # distance from the end at which a word of one hypothesis is released
LONGEST_WINDOW_SECONDS = 7.0  # released words are decoded again, at 7 ms per token
KEPT_WORDS = 4  # released words with which a window that became too long continues
LOWEST_CERTAINTY = -1.0  # of a hypothesis: 0 to -0.6 for clear English, and -0.9 to -3 for another language
LOWEST_AVERAGE_CERTAINTY = -0.9
CERTAINTY_SHARE = 0.4  # of a hypothesis in the moving average
KEPT_SECONDS = 2.0  # audio with which it continues if it has none
MOST_REJECTED = 2  # hypotheses in a row after which a window that becomes too long still keeps what was not released


class WindowModel(Protocol):
    """Recognizes one window; `Whisper` in `model` is the real one."""

    def decode(self, samples: Samples, prefix: Sequence[int], known_seconds: float, language: str) -> Hypothesis:
        """Return the words of `samples` `[n]` after those whose tokens are `prefix` and end at `known_seconds`."""


class WhisperRecognizer:
    """Recognizes one stream at a time; `reset` prepares it for the next one.

    Args:
        model: The model, which the recognizers of a process share.
    """

    _in_window: bool

    def __init__(self, model: WindowModel) -> None:
        self._model = model
        self.reset()

    def reset(self) -> list[EngineEvent]:
        """Discard the stream."""
        self._voice = VoiceDetector()
        self._samples = 0
        self._released_until = 0.0
        self._flushed_at = -STEP_SECONDS
        self._partial = ""
        self._certainty = 0.0  # moving average
        self._audio = np.zeros(0, np.float32)  # of the window, or the last of the silence
        self._close_window()
        return []

    def push(self, pcm: bytes, waiting: int = 0) -> list[EngineEvent]:
        """Recognize 16-bit samples; return their events, `Progress` last.

        Args:
            pcm: The samples of a frame.
            waiting: Number of frames of the stream that wait behind this one.
        """
        samples = as_float(np.frombuffer(pcm, "<i2"))
        self._audio = np.concatenate([self._audio, samples])
        self._samples += len(samples)
        speech = self._voice.push(samples)
        if speech and not self._in_window:
            self._in_window = True
            self._speech_start = self._now - len(samples) / SAMPLE_RATE
            self._recognized_until = self._speech_end
        events: list[EngineEvent] = []
        if self._in_window and self._voice.silence_seconds >= PAUSE_SECONDS:
            events += self._end_window()
        elif self._in_window and self._is_due(waiting):
            events += self._recognize()
        elif not self._in_window:
            self._audio = self._audio[-round(BEFORE_SPEECH_SECONDS * SAMPLE_RATE) :]
        pauses = pauses_from_silence(self._voice.silence_seconds, PAUSE_HORIZONS)
        return [*events, Progress(round(self._now, 3), pauses)]

    def push_partial(self, pcm: bytes) -> list[EngineEvent]:
        """Add a partial frame, which does not advance the clock; its words are released by the flush after it."""
        self._audio = np.concatenate([self._audio, as_float(np.frombuffer(pcm, "<i2"))])
        self._samples_ahead = len(pcm) // 2
        return []

    def flush(self) -> list[EngineEvent]:
        """Release all words of the audio so far.

        The window continues if the speaker is talking, since a word of which a window has only the end is recognized
        poorly, and if it has too little speech for a word. Flushes in quick succession end it, so that they cost less.
        """
        events: list[EngineEvent] = []
        if self._in_window and self._has_speech:
            if self._samples_ahead:
                self._recognized_until = -1.0
            if self._voice.silence_seconds or self._now - self._flushed_at < STEP_SECONDS:
                return self._end_window()
            self._flushed_at = self._now
            events = self._release_all()
        self._audio = self._audio[: len(self._audio) - self._samples_ahead]
        self._samples_ahead = 0
        return events

    @property
    def _now(self) -> float:
        return self._samples / SAMPLE_RATE

    @property
    def _has_speech(self) -> bool:
        return self._voice.speech_seconds >= SHORTEST_SPEECH_SECONDS

    @property
    def _may_recover(self) -> bool:
        """Whether the last hypothesis was rejected, and the next may give its words."""
        return 0 < self._rejected <= MOST_REJECTED

    @property
    def _speech_end(self) -> float:
        return self._now - self._voice.silence_seconds

    @property
    def _window_until(self) -> float:
        return min(self._now, self._speech_end + AFTER_SPEECH_SECONDS)

    @property
    def _window_start(self) -> float:
        return self._now - (len(self._audio) - self._samples_ahead) / SAMPLE_RATE

    @property
    def _window_end(self) -> int:
        """Number of samples up to shortly after the last speech."""
        return max(0, len(self._audio) - round((self._now - self._window_until) * SAMPLE_RATE))

    def _close_window(self) -> None:
        self._in_window = False
        self._speech_start = 0.0
        self._samples_ahead = 0  # of the clock, of a partial frame
        self._recognized_until = -1.0
        self._language = ""
        self._known: list[Guess] = []  # released words of the window; their times are those of the stream
        self._pending: list[Guess] = []  # the other words of the last hypothesis
        self._agreed = 0  # how many of them the hypothesis before had, too
        self._rejected = 0  # hypotheses in a row
        self._voice.start_count()

    def _end_window(self) -> list[EngineEvent]:
        """Release the words of the window; the next one begins with the audio after its speech."""
        events = self._release_all()
        self._audio = self._audio[self._window_end : len(self._audio) - self._samples_ahead]
        self._close_window()
        return events

    def _release_all(self) -> list[EngineEvent]:
        if self._has_speech and self._window_until > self._recognized_until:
            before = self._pending
            if not self._update_hypothesis():  # the model repeats itself
                self._pending = before
        return [*self._release_first(len(self._pending)), *self._update_partial()]

    def _is_due(self, waiting: int) -> bool:
        step = STEP_SECONDS if self._may_recover else min(STEP_SECONDS + waiting * FRAME_SECONDS, LONGEST_STEP_SECONDS)
        return self._speech_end - self._recognized_until >= step

    def _recognize(self) -> list[EngineEvent]:
        self._update_hypothesis()
        events: list[EngineEvent] = self._release_first(self._settled_words())
        events += self._shorten_window()
        return [*events, *self._update_partial()]

    def _update_hypothesis(self) -> bool:
        """Recognize the window; return False if there is no hypothesis, but only a text that repeats itself."""
        start = self._window_start
        prefix = [token for guess in self._known for token in guess.tokens]
        known_seconds = max(0.0, self._known[-1].end - start) if self._known else 0.0
        samples = self._audio[: self._window_end]
        hypothesis = self._model.decode(samples, prefix, known_seconds, self._language if self._known else "")
        before, self._pending, self._agreed = self._pending, [], 0
        self._recognized_until = self._window_until
        if hypothesis.words:
            self._certainty += CERTAINTY_SHARE * (hypothesis.certainty - self._certainty)
        is_certain = hypothesis.certainty >= LOWEST_CERTAINTY and self._certainty >= LOWEST_AVERAGE_CERTAINTY
        if not (hypothesis.credible and is_certain):
            self._rejected += 1
            return bool(hypothesis.words) or hypothesis.credible
        self._rejected = 0
        self._language = hypothesis.language
        self._pending = [self._on_the_clock(word, start) for word in hypothesis.words]
        for old, new in zip(before, self._pending, strict=False):
            if old.key != new.key:
                break
            self._agreed += 1
        return True

    def _on_the_clock(self, word: Guess, window_start: float) -> Guess:
        """Return a word with times of the stream. The alignment puts the start of a first word before the speech."""
        start = max(self._speech_start, window_start + word.start)
        return replace(word, start=start, end=max(start, window_start + word.end))

    def _settled_words(self) -> int:
        """Return how many pending words can be released; the last one may be half a word, and has no punctuation."""
        for index, guess in enumerate(self._pending[:-1]):
            if index >= self._agreed and self._speech_end - guess.end < SETTLED_SECONDS:
                return index
        return max(0, len(self._pending) - 1)

    def _shorten_window(self) -> list[EngineEvent]:
        """Remove the beginning of a window that has become too long.

        A few released words remain or, without any, seconds. Pending words before the rest are released. After a
        rejected hypothesis, the audio behind the released words remains.
        """
        if self._now - self._window_start < LONGEST_WINDOW_SECONDS:
            return []
        earliest = self._now - LONGEST_WINDOW_SECONDS / 2
        known = [guess for guess in self._known[-KEPT_WORDS:] if guess.start > earliest]
        start = known[0].start if known else self._now - KEPT_SECONDS
        if self._may_recover:
            unreleased = self._known[-1].end if self._known else self._window_start
            start = min(start, max(unreleased, self._now - LONGEST_WINDOW_SECONDS))
        lost = sum(guess.start < start for guess in self._pending)
        events = self._release_first(lost)
        if lost:
            start = max(start, self._known[-1].end)
        self._known = known
        self._audio = self._audio[max(0, round((start - self._window_start) * SAMPLE_RATE)) :]
        return events

    def _release_first(self, count: int) -> list[EngineEvent]:
        words: list[EngineEvent] = [self._release(guess) for guess in self._pending[:count]]
        self._pending = self._pending[count:]
        self._agreed = max(0, self._agreed - count)
        return words

    def _release(self, guess: Guess) -> Word:
        start = max(min(guess.start, self._now), self._released_until)
        end = max(min(guess.end, self._now), start)
        self._released_until = end
        self._known.append(guess)
        return Word(guess.text, round(start, 3), round(end, 3), round(min(1.0, guess.probability), 3))

    def _update_partial(self) -> Iterator[Partial]:
        text = " ".join(guess.text for guess in self._pending)
        if text != self._partial:
            self._partial = text
            start = self._pending[0].start if self._pending else self._released_until
            yield Partial(text, round(max(start, self._released_until), 3))

"""Streaming recognition with PocketSphinx: frames of 80 ms in, words with times and confidence out.

A decoder's hypothesis may change with every frame until its utterance ends. Then a second pass over the word lattice
gives better words, and posteriors. Utterances are therefore ended at every short pause. A word that has not changed
for a while, and lies some way back, is released without a pause; what the second pass finds for released words is
ignored. Late words have fewer errors: with the settings below, a word waits for little more than a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pocketsphinx import Decoder, Vad

from tympan.audio.activity import pauses_from_silence
from tympan.messages import EngineEvent, Partial, Progress, Word

SAMPLE_RATE = 16_000
FRAME_SAMPLES = 1_280
PAUSE_HORIZONS = (0.5, 1.0, 2.0, 3.0)

PAUSE_SECONDS = 0.3  # silence that ends an utterance
LONGEST_UTTERANCE_SECONDS = 20.0  # the time of the second pass grows with the utterance
RELEASE_AFTER_SECONDS = 1.0  # distance from now at which a word may be released early
RELEASE_AFTER_FRAMES = 10  # frames for which it must have been unchanged
VAD_SECONDS = 0.03
VAD_MODE = 2  # 0 (takes noise for speech) to 3 (takes speech for noise)

_ALTERNATIVE = re.compile(r"\(\d+\)$")  # "the(2)" is another pronunciation of "the"


@dataclass(frozen=True, slots=True)
class _Guess:
    """A word of the current hypothesis. Frames of 10 ms are counted from the start of the utterance."""

    text: str
    start_frame: int
    end_frame: int
    confidence: float


class Recognizer:
    """Recognizes one stream at a time; `reset` prepares it for the next one."""

    def __init__(self) -> None:
        self._decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
        self._cmn = self._decoder.get_cmn(False)
        self._in_utterance = False
        self.reset()

    def reset(self) -> list[EngineEvent]:
        """Discard the stream. The cepstral mean, which adapts to the speaker, returns to the model's value."""
        if self._in_utterance:
            self._decoder.end_utt()
        self._decoder.set_cmn(self._cmn)
        self._vad = Vad(VAD_MODE, SAMPLE_RATE, VAD_SECONDS)
        self._vad_rest = b""
        self._silence = 0.0
        self._samples = 0
        self._released_until = 0.0
        self._partial = ""
        self._start_utterance()
        return []

    def push(self, pcm: bytes, waiting: int = 0) -> list[EngineEvent]:
        """Recognize `FRAME_SAMPLES` 16-bit samples; return their events, `Progress` last. `waiting` has no effect."""
        self._decoder.process_raw(pcm)
        self._samples += len(pcm) // 2
        self._measure_silence(pcm)
        guesses = self._guesses()
        self._count_unchanged(guesses)
        events: list[EngineEvent] = list(self._release_early(guesses))
        length = self._now - self._utterance_start
        if (guesses and self._silence >= PAUSE_SECONDS) or length >= LONGEST_UTTERANCE_SECONDS:
            events += self.flush()
        else:
            events += self._update_partial(guesses)
        return [*events, Progress(round(self._now, 3), pauses_from_silence(self._silence, PAUSE_HORIZONS))]

    def push_partial(self, pcm: bytes) -> list[EngineEvent]:
        """Recognize a partial frame, which does not advance the clock; its words are released by the flush after it."""
        self._decoder.process_raw(pcm)
        return []

    def flush(self) -> list[EngineEvent]:
        """End the utterance, and release all words of the audio so far."""
        self._decoder.end_utt()
        words: list[EngineEvent] = [self._release(guess) for guess in self._pending(self._guesses())]
        events = [*words, *self._update_partial([])]
        self._start_utterance()
        return events

    @property
    def _now(self) -> float:
        return self._samples / SAMPLE_RATE

    def _start_utterance(self) -> None:
        self._decoder.start_utt()
        self._in_utterance = True
        self._utterance_start = self._now
        self._unchanged: dict[tuple[str, int], int] = {}

    def _guesses(self) -> list[_Guess]:
        """Return the words of the current hypothesis, without silences and noises."""
        return [
            _Guess(_ALTERNATIVE.sub("", segment.word), segment.start_frame, segment.end_frame + 1, _confidence(segment))
            for segment in self._decoder.seg() or ()
            if segment.word[0] not in "<[+"
        ]

    def _count_unchanged(self, guesses: list[_Guess]) -> None:
        keys = ((guess.text, guess.start_frame) for guess in guesses)
        self._unchanged = {key: self._unchanged.get(key, 0) + 1 for key in keys}

    def _pending(self, guesses: list[_Guess]) -> list[_Guess]:
        """Return the guesses whose middle lies after the last released word."""
        return [
            guess
            for guess in guesses
            if self._seconds((guess.start_frame + guess.end_frame) / 2) > self._released_until
        ]

    def _release_early(self, guesses: list[_Guess]) -> Iterator[Word]:
        for guess in self._pending(guesses):
            behind = self._now - self._seconds(guess.end_frame)
            unchanged = self._unchanged[guess.text, guess.start_frame]
            if behind < RELEASE_AFTER_SECONDS or unchanged < RELEASE_AFTER_FRAMES:
                return
            yield self._release(guess)

    def _release(self, guess: _Guess) -> Word:
        start = max(self._seconds(guess.start_frame), self._released_until)
        end = max(min(self._seconds(guess.end_frame), self._now), start)
        self._released_until = end
        return Word(guess.text, round(start, 3), round(end, 3), round(guess.confidence, 3))

    def _update_partial(self, guesses: list[_Guess]) -> Iterator[Partial]:
        pending = self._pending(guesses)
        text = " ".join(guess.text for guess in pending)
        if text != self._partial:
            self._partial = text
            start = self._seconds(pending[0].start_frame) if pending else self._released_until
            yield Partial(text, round(max(start, self._released_until), 3))

    def _seconds(self, frame: float) -> float:
        return self._utterance_start + frame / 100

    def _measure_silence(self, pcm: bytes) -> None:
        size = self._vad.frame_bytes
        self._vad_rest += pcm
        while len(self._vad_rest) >= size:
            speech = self._vad.is_speech(self._vad_rest[:size])
            self._vad_rest = self._vad_rest[size:]
            self._silence = 0.0 if speech else self._silence + VAD_SECONDS


def _confidence(segment: object) -> float:
    """Return the posterior, or the normalized acoustic score before the second pass, when the posterior is 1."""
    posterior = float(getattr(segment, "prob"))  # noqa: B009
    return min(1.0, posterior if posterior < 1.0 else float(getattr(segment, "ascore")))  # noqa: B009

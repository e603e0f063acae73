"""One decoding of a window of speech by Whisper: words with times and probabilities, and whether they are credible.

Whisper was trained on windows of 30 s. Encoding one takes 350 ms of a core, whatever is in it; encoding only the speech
takes a tenth of that, but then the model does not see where the speech ends, and repeats it. `PADDING_SECONDS` of
digital silence after the speech avoid nearly all repetitions; what still repeats is decoded again with
`LONGER_PADDING_SECONDS`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from tympan.engine.embedded.whisper.words import (
    Guess,
    Hypothesis,
    certainty_of,
    is_compressible,
    is_speech,
    join,
    repeats_itself,
    words_after,
)
from tympan.messages import Samples

SAMPLE_RATE = 16_000
FEATURES_PER_SECOND = 100
PADDING_SECONDS = 4.0
LONGER_PADDING_SECONDS = 12.0
TOKENS_PER_SECOND = 8.0  # of the fastest speech; what repeats itself has more
SPARE_TOKENS = 8
UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")  # languages without spaces between words
TRIAL_SECONDS, TRIAL_TOKENS = 2.0, 8  # a short window, so that the start takes little longer
TRIALS_PER_SECOND = 2.25  # CPU time of a second of live speech, in such windows
BUSY_SHARE = 0.8  # of a core
DIGIT = re.compile(r"\d")
PUNCTUATION = ".。,，!！?？:：、"


class Whisper:
    """A model in the format of CTranslate2, on one thread of the CPU.

    Args:
        folder: The folder with `model.bin`, `config.json` and `tokenizer.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._whisper = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
        self._tokenizers: dict[str, Tokenizer] = {}
        tokenizer = self._tokenizer("en")
        # Without digits the model writes numbers as they are spoken; with them, a count is "1-2-345-678910".
        vocabulary = self._whisper.hf_tokenizer.get_vocab()
        digits = [token for text, token in vocabulary.items() if token < tokenizer.eot and DIGIT.search(text)]
        self._suppressed = [*get_suppressed_tokens(tokenizer, [-1]), *digits]

    def decode(
        self, samples: Samples, prefix: Sequence[int] = (), known_seconds: float = 0.0, language: str = ""
    ) -> Hypothesis:
        """Recognize a window.

        Args:
            samples: The window, `[n]` at 16 kHz.
            prefix: Tokens of the words at its start that are known; they are not decoded again.
            known_seconds: The end of these words.
            language: Language code; empty to detect it. Models for English only ignore it.
        """
        seconds = len(samples) / SAMPLE_RATE
        most_tokens = SPARE_TOKENS + round(TOKENS_PER_SECOND * (seconds - known_seconds))
        for padding in (PADDING_SECONDS, LONGER_PADDING_SECONDS):
            encoded = self._encode(samples, padding)
            tokenizer = self._tokenizer(language or self._detect_language(encoded))
            tokens, no_speech = self._generate(tokenizer, encoded, prefix, most_tokens)
            repeats = len(tokens) >= most_tokens or is_compressible(tokenizer.decode(tokens))
            if not repeats:
                break
        if repeats or not tokens:
            return Hypothesis((), not repeats, 0.0, tokenizer.language_code)
        words = self._align(tokenizer, encoded, [*prefix, *tokens], seconds)
        certainty = certainty_of(words)
        credible = is_speech(certainty, no_speech) and not repeats_itself([word.key for word in words])
        return Hypothesis(tuple(words_after(len(prefix), words)), credible, certainty, tokenizer.language_code)

    def streams_per_core(self) -> float:
        """Return how many live streams a core carries, from the CPU time of a short window."""
        before = time.process_time()
        tokenizer = self._tokenizer("en")
        encoded = self._encode(np.zeros(round(TRIAL_SECONDS * SAMPLE_RATE), np.float32), PADDING_SECONDS)
        self._whisper.model.generate(
            encoded,
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps]],
            beam_size=1,
            max_length=2 * TRIAL_TOKENS,
            suppress_tokens=[*self._suppressed, tokenizer.eot],
        )
        return BUSY_SHARE / (TRIALS_PER_SECOND * (time.process_time() - before))

    def _encode(self, samples: Samples, padding: float) -> object:
        audio = np.pad(samples, (0, round(padding * SAMPLE_RATE)))
        return self._whisper.encode(self._whisper.feature_extractor(audio, padding=0))

    def _generate(
        self, tokenizer: Tokenizer, encoded: object, prefix: Sequence[int], most_tokens: int
    ) -> tuple[list[int], float]:
        """Return the tokens after the prefix, and the probability that there is no speech."""
        [result] = self._whisper.model.generate(
            encoded,
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps, *prefix]],
            beam_size=1,
            max_length=2 * (len(prefix) + most_tokens),  # CTranslate2 generates half as many, the prefix included
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )
        return result.sequences_ids[0][len(prefix) :], result.no_speech_prob

    def _align(self, tokenizer: Tokenizer, encoded: object, tokens: list[int], seconds: float) -> list[Guess]:
        frames = round(seconds * FEATURES_PER_SECOND)
        [words] = self._whisper.find_alignment(tokenizer, [tokens], encoded, frames)
        guesses: list[Guess] = []
        for word in words:
            text, probability = word["word"], float(word["probability"])
            guess = Guess(text.strip(), tuple(word["tokens"]), float(word["start"]), float(word["end"]), probability)
            attached = text.strip() in PUNCTUATION if tokenizer.language_code in UNSPACED else not text.startswith(" ")
            if guesses and attached:
                guesses[-1] = join(guesses[-1], guess)
            else:
                guesses.append(guess)
        return guesses

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            multilingual = self._whisper.model.is_multilingual
            self._tokenizers[language] = Tokenizer(self._whisper.hf_tokenizer, multilingual, "transcribe", language)
        return self._tokenizers[language]

    def _detect_language(self, encoded: object) -> str:
        if not self._whisper.model.is_multilingual:
            return "en"
        [languages] = self._whisper.model.detect_language(encoded)
        return str(languages[0][0]).strip("<|>")

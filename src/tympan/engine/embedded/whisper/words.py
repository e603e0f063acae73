"""The words of a window, and whether they are credible: from noise or another language a model invents some."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEAST_WORDS = 6  # over which the mean probability is taken, if there are as many
HIGHEST_COMPRESSION = 2.4  # of a text that repeats itself
LEAST_REPEATED_WORDS = 3  # in a row, which people rarely say twice
NUMBERS = frozenset(
    {
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty"),
        *("forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million"),
    }
)
NUMBER_SHARE = 0.5  # of their log probability: the model prefers digits, which are not generated
NO_SPEECH = (0.6, -0.5)  # not speech: probability of no speech above, certainty below


@dataclass(frozen=True, slots=True)
class Guess:
    """A word of a hypothesis; times are seconds from the start of the window."""

    text: str
    tokens: tuple[int, ...]
    start: float
    end: float
    probability: float

    @property
    def key(self) -> str:
        """The word without punctuation and case, which change with every hypothesis."""
        return "".join(filter(str.isalnum, self.text)).lower() or self.text


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The words of a window after its prefix.

    Attributes:
        credible: False if the window is probably not speech, or if the model repeats itself.
        certainty: Mean log probability of the last words, prefix included; 0 without words.
        language: Language code of the window.
    """

    words: tuple[Guess, ...]
    credible: bool
    certainty: float
    language: str


def join(word: Guess, rest: Guess) -> Guess:
    """Return one word of two, of which the second has no space before it, such as a full stop."""
    tokens = word.tokens + rest.tokens
    probability = (word.probability * len(word.tokens) + rest.probability * len(rest.tokens)) / len(tokens)
    return Guess(word.text + rest.text, tokens, word.start, rest.end, probability)


def words_after(prefix_tokens: int, words: Sequence[Guess]) -> Iterator[Guess]:
    """Yield the words that begin after the prefix. Tokens that continue its last word are dropped."""
    position = 0
    for word in words:
        if position >= prefix_tokens and word.text:
            yield word
        position += len(word.tokens)


def is_compressible(text: str) -> bool:
    """Return whether the text is one that repeats itself, by how much it can be compressed."""
    return len(text.encode()) / len(zlib.compress(text.encode())) > HIGHEST_COMPRESSION


def repeats_itself(words: Sequence[str]) -> bool:
    """Return whether three or more words follow themselves immediately."""
    return any(
        words[start : start + size] == words[start + size : start + 2 * size]
        for size in range(LEAST_REPEATED_WORDS, len(words) // 2 + 1)
        for start in range(len(words) - 2 * size + 1)
    )


def certainty_of(words: Sequence[Guess]) -> float:
    """Return the mean log probability of the last words; 0 without words.

    Words that occurred before in the window do not count: a model that repeats itself is certain of them.
    """
    found: dict[str, float] = {}
    for word in words:
        share = NUMBER_SHARE if word.key in NUMBERS else 1.0
        found.setdefault(word.key, share * math.log(max(word.probability, 1e-9)))
    last = list(found.values())[-LEAST_WORDS:]
    return sum(last) / len(last) if last else 0.0


def is_speech(certainty: float, no_speech: float) -> bool:
    """Return whether a window has speech, from the certainty of its words and the model's probability of no speech."""
    least, below = NO_SPEECH
    return not (no_speech > least and certainty < below)

"""Joins words as people read them: a glued word extends the one before it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from tympan.messages import Partial, Word


def append_word(words: list[Word], word: Word) -> None:
    """Append a word, or extend the last word if the new one is glued to it. The confidence is the lower of the two."""
    if not (word.glued and words):
        words.append(word)
        return
    last = words[-1]
    confidence = min(last.confidence, word.confidence)
    words[-1] = replace(last, text=last.text + word.text, end=word.end, confidence=confidence)


def text_after(previous: bool, word: Word | Partial) -> str:
    """Return the text of a word, or of what may become words, with the space before it.

    Args:
        previous: Whether there is text before it.
        word: The word or the partial.
    """
    return f" {word.text}" if previous and not word.glued else word.text


def text_of_words(words: Iterable[Word]) -> str:
    """Return the text of words, with a space before each word that is not glued."""
    return "".join(text_after(number > 0, word) for number, word in enumerate(words))


def whole_words(words: Iterable[Word]) -> list[Word]:
    """Return the words with glued ones joined to the word before them; only the first one may be glued."""
    whole: list[Word] = []
    for word in words:
        append_word(whole, word)
    return whole

"""Tokens to words. 0 is a boundary, 3 padding; the frame of a token is its place in the list, counted from 1."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.messages import Partial, Word
from tympan.transcript.tokenizer import SyntheticTokenizer
from tympan.transcript.words import BOUNDARY, PADDING, WordAssembler


class Pieces:
    """A tokenizer of a few pieces from id 10 on."""

    PIECES = ("▁hel", "lo", "▁wor", "ld", "▁a", "<0xC3>", "<0xA9>", "▁")
    size = 10 + len(PIECES)

    def piece(self, token: int) -> str:
        return self.PIECES[token - 10]


HEL, LO, WOR, LD, A, C3, A9, SPACE = range(10, 18)
WAIT = [PADDING] * 6  # the model's delay: nothing that it says before is believed


def assemble(*tokens: int, probability: float = 1.0) -> list[Word]:
    words, _ = run(list(tokens), probability)
    return words


def run(tokens: list[int], probability: float = 1.0) -> tuple[list[Word], list[Partial]]:
    assembler = WordAssembler(Pieces(), delay_seconds=0.5)
    events = [event for token in tokens for event in assembler.step(token, probability)] + assembler.release()
    return [event for event in events if isinstance(event, Word)], [e for e in events if isinstance(e, Partial)]


def time_of(position: int) -> float:
    """Kyutai's production rule for the half-second model."""
    return round(position * 0.08 - 0.40, 3)


def test_a_word_is_released_by_the_padding_after_it() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, LO, PADDING)
    assert words == [Word("hello", time_of(7), time_of(10), 1.0)]


def test_a_boundary_ends_one_word_and_starts_the_next() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, LO, BOUNDARY, WOR, LD, PADDING)
    assert [(word.text, word.start, word.end) for word in words] == [
        ("hello", time_of(7), time_of(10)),
        ("world", time_of(10), time_of(13)),
    ]


def test_one_release_may_hold_several_words() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, LO, WOR, LD, A, PADDING)
    assert [word.text for word in words] == ["hello", "world", "a"]
    assert [word.start for word in words] == [time_of(7), time_of(9), time_of(11)]
    assert all(earlier.end == later.start for earlier, later in pairwise(words))


def test_an_empty_release_is_dropped() -> None:
    assert assemble(*WAIT, BOUNDARY, SPACE, PADDING) == []


def test_bytes_become_characters_and_half_ones_are_not_shown() -> None:
    words, partials = run([*WAIT, BOUNDARY, A, C3, A9, PADDING])
    assert [word.text for word in words] == ["aé"]
    assert [partial.text for partial in partials] == ["a", "a", "aé", ""]


def test_partials_grow_and_are_taken_back() -> None:
    _, partials = run([*WAIT, BOUNDARY, HEL, LO, PADDING])
    assert [partial.text for partial in partials] == ["hel", "hello", ""]
    assert {partial.start for partial in partials[:2]} == {time_of(7)}


def test_what_comes_before_the_delay_is_not_believed() -> None:
    assert assemble(HEL, LO, PADDING) == []


def test_the_pending_word_is_released_by_a_flush() -> None:
    assembler = WordAssembler(Pieces(), delay_seconds=0.5)
    for token in [*WAIT, BOUNDARY, HEL]:
        assembler.step(token, 1.0)
    assert [event.text for event in assembler.step(LO, 1.0, injected=True)] == ["hello"]
    assert [event.text for event in assembler.release()] == ["hello", ""]
    assert assembler.release() == []


def test_injected_silence_does_not_move_the_clock() -> None:
    plain, flushed = WordAssembler(Pieces(), 0.5), WordAssembler(Pieces(), 0.5)
    for token in WAIT:
        plain.step(token, 1.0)
        flushed.step(token, 1.0)
    for _ in range(7):
        flushed.step(PADDING, 1.0, injected=True)
    flushed.release()
    tail = [*[PADDING] * 6, BOUNDARY, HEL, LO, PADDING]
    told = [[event for token in tail for event in assembler.step(token, 1.0)] for assembler in (plain, flushed)]
    assert told[0] == told[1]


def test_confidence_is_the_geometric_mean_of_the_pieces() -> None:
    assembler = WordAssembler(Pieces(), delay_seconds=0.5)
    events = [event for token in WAIT for event in assembler.step(token, 1.0)]
    for token, probability in ((HEL, 0.9), (LO, 0.4), (PADDING, 0.1)):
        events += assembler.step(token, probability)
    assert next(event for event in events if isinstance(event, Word)).confidence == pytest.approx(0.6)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=200), st.sampled_from([0.5, 2.5]))
def test_any_tokens_give_ordered_words_inside_the_audio(steps: list[tuple[int, bool]], delay: float) -> None:
    assembler = WordAssembler(SyntheticTokenizer(100), delay)
    words: list[Word] = []
    received = 0
    for token, injected in steps:
        received += not injected
        words += [event for event in assembler.step(token, 0.5, injected) if isinstance(event, Word)]
        if injected:
            words += [event for event in assembler.release() if isinstance(event, Word)]
    assert all(word.text.strip() == word.text != "" for word in words)
    assert all(0 <= word.start <= word.end <= received * 0.08 + 1e-9 for word in words)
    assert all(earlier.end <= later.start for earlier, later in pairwise(words))

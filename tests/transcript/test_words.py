"""Tokens to words. 0 is a boundary, 3 padding; the frame of a token is its place in the list, counted from 1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tympan.messages import Partial, Word
from tympan.transcript.joining import text_after, text_of_words, whole_words
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


def test_padding_releases_a_word() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, LO, PADDING)
    assert words == [Word("hello", time_of(7), time_of(10), 1.0)]


def test_boundary() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, LO, BOUNDARY, WOR, LD, PADDING)
    assert [(word.text, word.start, word.end) for word in words] == [
        ("hello", time_of(7), time_of(10)),
        ("world", time_of(10), time_of(13)),
    ]


def test_silence_prefix() -> None:
    tokens = [*WAIT, BOUNDARY, HEL, LO, BOUNDARY, WOR, LD, PADDING]
    assembler = WordAssembler(Pieces(), delay_seconds=0.5, prefix_frames=13)
    before = [assembler.step(token, 1.0, injected=True) for token in [PADDING] * 11 + [A, PADDING]]
    after = [event for token in tokens for event in assembler.step(token, 1.0)]
    flushed = [event for token in [A, PADDING] for event in assembler.step(token, 1.0, injected=True)]
    assembler.release()
    later = [event for token in [HEL, LO, PADDING] for event in assembler.step(token, 1.0)]
    assert not any(before)

    plain = WordAssembler(Pieces(), delay_seconds=0.5)
    assert after == [event for token in tokens for event in plain.step(token, 1.0)]
    assert flushed == [event for token in [A, PADDING] for event in plain.step(token, 1.0, injected=True)]
    plain.release()
    assert later == [event for token in [HEL, LO, PADDING] for event in plain.step(token, 1.0)]


def test_several_words_in_one_release() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, LO, WOR, LD, A, PADDING)
    assert [word.text for word in words] == ["hello", "world", "a"]
    assert [word.start for word in words] == [time_of(7), time_of(9), time_of(11)]
    assert all(earlier.end == later.start for earlier, later in pairwise(words))


def test_empty_release() -> None:
    assert assemble(*WAIT, BOUNDARY, SPACE, PADDING) == []


def test_byte_pieces() -> None:
    words, partials = run([*WAIT, BOUNDARY, A, C3, A9, PADDING])
    assert [word.text for word in words] == ["aé"]
    assert [partial.text for partial in partials] == ["a", "a", "aé", ""]


def test_partials() -> None:
    _, partials = run([*WAIT, BOUNDARY, HEL, LO, PADDING])
    assert [partial.text for partial in partials] == ["hel", "hello", ""]
    assert {partial.start for partial in partials[:2]} == {time_of(7)}


def test_tokens_before_the_delay() -> None:
    assert assemble(HEL, LO, PADDING) == []


def test_flush_releases_the_pending_word() -> None:
    assembler = WordAssembler(Pieces(), delay_seconds=0.5)
    for token in [*WAIT, BOUNDARY, HEL]:
        assembler.step(token, 1.0)
    assert [event.text for event in assembler.step(LO, 1.0, injected=True)] == ["hello"]
    assert [event.text for event in assembler.release()] == ["hello", ""]
    assert assembler.release() == []


def test_injected_silence() -> None:
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


def test_confidence() -> None:
    assembler = WordAssembler(Pieces(), delay_seconds=0.5)
    events = [event for token in WAIT for event in assembler.step(token, 1.0)]
    for token, probability in ((HEL, 0.9), (LO, 0.4), (PADDING, 0.1)):
        events += assembler.step(token, probability)
    assert next(event for event in events if isinstance(event, Word)).confidence == pytest.approx(0.6)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=200), st.sampled_from([0.5, 2.5]))
def test_any_tokens(steps: list[tuple[int, bool]], delay: float) -> None:
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


def test_rewind_repeats_no_word() -> None:
    assembler = WordAssembler(Pieces(), 0.5)
    said = [*WAIT, BOUNDARY, HEL, LO, PADDING, PADDING]
    first = [event for token in said for event in assembler.step(token, 1.0)]
    assert assembler.rewind(0) == []
    again = [event for token in [*said, BOUNDARY, WOR, LD, PADDING] for event in assembler.step(token, 1.0)]
    assert [event.text for event in first if isinstance(event, Word)] == ["hello"]
    assert [event for event in again if isinstance(event, Word)] == [Word("world", time_of(12), time_of(15), 1.0)]
    assert [event.text for event in again if isinstance(event, Partial)] == ["wor", "world", ""]


def test_rewind_withdraws_the_partial() -> None:
    assembler = WordAssembler(Pieces(), 0.5)
    for token in [*WAIT, BOUNDARY, HEL]:
        assembler.step(token, 1.0)
    assert assembler.rewind(2) == [Partial("", 0.0)]
    assert assembler.release() == []


def test_tokens_before_the_delay_after_rewind() -> None:
    assembler = WordAssembler(Pieces(), 0.5)
    for token in [*WAIT, *[PADDING] * 20]:
        assembler.step(token, 1.0)
    assembler.rewind(10)
    told = [
        event for token in [HEL, LO, PADDING, *WAIT, BOUNDARY, WOR, PADDING] for event in assembler.step(token, 1.0)
    ]
    assert [event for event in told if isinstance(event, Word)] == [Word("wor", time_of(20), time_of(22), 1.0)]


class NumberedWords:
    """Ids 10, 12, … begin word 0, 1, …, each by itself; the odd ones go on with it."""

    size = 100

    def piece(self, token: int) -> str:
        return f"▁{token // 2 - 5}" if token % 2 == 0 else "x"


@dataclass(frozen=True)
class Spoken:
    """A word that a model says: a boundary at frame `start`, then its pieces."""

    start: int
    pieces: int

    @property
    def end(self) -> int:
        """The frame of the token that releases it."""
        return self.start + self.pieces + 1


@st.composite
def speeches(draw: st.DrawFn) -> list[Spoken]:
    words: list[Spoken] = []
    end = 7
    for _ in range(draw(st.integers(1, 12))):
        words.append(Spoken(end + draw(st.sampled_from([0, 0, 1, 9])), draw(st.integers(2, 5))))
        end = words[-1].end
    return words


def tokens(words: list[Spoken], frames: int) -> list[int]:
    """For `NumberedWords`."""
    said = [PADDING] * frames
    for index, word in enumerate(words):
        for place in range(word.pieces):
            said[word.start + 1 + place] = 10 + 2 * index + (place > 0)
        said[word.start] = BOUNDARY
    return said


@given(speeches(), st.data(), st.integers(-1, 1))
@settings(max_examples=300)
def test_rewind_keeps_every_word(words: list[Spoken], data: st.DataObject, moved: int) -> None:
    """The model hears the words up to a frame earlier or later the second time; every word is three frames or more."""
    frames = words[-1].end + 10
    heard_first = data.draw(st.integers(0, len(words)), "words before the model falls silent")
    stalled_at = words[heard_first - 1].end + data.draw(st.integers(0, 1)) if heard_first else 0
    restarted_at = data.draw(st.integers(stalled_at + 1, frames), "frame at which it is started again")
    back_to = data.draw(st.integers(0, restarted_at - 1), "the first frame that is heard again")
    again = [Spoken(word.start + moved, word.pieces) for word in words]

    assembler = WordAssembler(NumberedWords(), 0.5)
    first = tokens(words[:heard_first], frames)[:restarted_at]
    events = [event for token in first for event in assembler.step(token, 1.0)]
    events += assembler.rewind(back_to)
    events += [event for token in tokens(again, frames)[back_to:] for event in assembler.step(token, 1.0)]
    told = [event for event in events if isinstance(event, Word)]

    assert all(earlier.end <= later.start for earlier, later in pairwise(told))
    assert all(word.end <= frames * 0.08 for word in told)
    told_texts = [word.text for word in told]
    for index, word in enumerate(again):
        if index < heard_first or word.start >= back_to + 6:
            assert told_texts.count(f"{index}{'x' * (word.pieces - 1)}") == 1


def test_piece_at_the_first_position_of_speech() -> None:
    """Kyutai's Rust server accepts pieces from LM position 5 of the half-second model on."""
    assert [word.text for word in assemble(*[PADDING] * 4, HEL, LO, PADDING)] == ["hello"]


def test_word_without_its_head() -> None:
    """The head comes before the first accepted position."""
    rest = [*[PADDING] * 3, HEL, LO]
    assert assemble(*rest, PADDING) == []
    assert assemble(*rest, PADDING, LD, PADDING) == [], "a piece after padding continues the word"
    assert [word.text for word in assemble(*rest, WOR, LD, PADDING)] == ["world"]
    assert [word.text for word in assemble(*rest, BOUNDARY, LD, PADDING)] == ["ld"]


def test_pieces_after_padding_are_glued() -> None:
    words = assemble(*WAIT, BOUNDARY, HEL, PADDING, LO, PADDING, LO, BOUNDARY, WOR, PADDING, BOUNDARY, LD, PADDING)
    assert [(word.text, word.glued) for word in words] == [
        ("hel", False),
        ("lo", True),
        ("lo", True),
        ("wor", False),
        ("ld", True),
    ]
    assert [word.text for word in whole_words(words)] == ["hellolo", "world"]
    assert text_of_words(words) == "hellolo world"


@settings(deadline=None)
@given(st.lists(st.sampled_from([BOUNDARY, PADDING, HEL, LO, WOR, LD, A, SPACE]), max_size=60))
def test_partials_are_joined_as_their_words(tokens: list[int]) -> None:
    """The text with a partial is what the text becomes if its word is released without further pieces."""
    assembler, words = WordAssembler(Pieces(), delay_seconds=0.5), [Word("before", 0.0, 0.0, 1.0)]
    shown = ""
    for token in [*WAIT, *tokens, PADDING]:
        for event in assembler.step(token, 1.0):
            if isinstance(event, Word):
                words.append(event)
            elif isinstance(event, Partial) and event.text:
                shown = text_of_words(words) + text_after(True, event)
        if token in (BOUNDARY, PADDING) and shown:
            assert text_of_words(words) == " ".join(shown.split())
            shown = ""


def test_space_before_padding() -> None:
    """The model may emit the space of a word as a piece of its own."""
    words = assemble(*WAIT, BOUNDARY, HEL, LO, PADDING, SPACE, PADDING, LD, PADDING)
    assert text_of_words(words) == "hello ld"


def test_control_tokens_have_no_text() -> None:
    assembler = WordAssembler(SyntheticTokenizer(100), 0.5)
    events = [
        event for token in [*WAIT, BOUNDARY, 1, 4, 2, 6, 1, PADDING, 2, PADDING] for event in assembler.step(token, 1)
    ]
    plain = WordAssembler(SyntheticTokenizer(100), 0.5)
    same = [event for token in [*WAIT, BOUNDARY, 4, 6, PADDING] for event in plain.step(token, 1)]
    assert [event.text for event in events] == [event.text for event in same]


@pytest.mark.parametrize(("delay", "position", "seconds"), [(0.5, 6, 0.08), (2.5, 50, 1.52)])
def test_times_of_kyutais_server(delay: float, position: int, seconds: float) -> None:
    """Its configurations count 6 and 32 tokens of delay: the time is position / 12.5 - 0.40 s and - 2.48 s."""
    assembler = WordAssembler(Pieces(), delay)
    events = [event for _ in range(position - 1) for event in assembler.step(PADDING, 1.0)]
    events += [event for token in (BOUNDARY, HEL, PADDING) for event in assembler.step(token, 1.0)]
    assert [(event.start, event.end) for event in events if isinstance(event, Word)] == [
        (seconds, round(seconds + 0.16, 3))
    ]

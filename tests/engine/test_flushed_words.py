"""Flushes and the end of a stream release whole words: no piece is lost, repeated, or moved to another turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.counting import COUNTING_INFO
from support.token_streams import TokenStream

from tympan.engine.batching.scheduler import FINAL_FRAMES, MOST_EXTRA_FRAMES, Row
from tympan.engine.batching.step import flush_frames
from tympan.engine.batching.stream import QUIET_FRAMES
from tympan.messages import EngineEvent, Finished, Flushed, Progress, Word
from tympan.transcript.joining import text_of_words
from tympan.transcript.words import BOUNDARY, PADDING, WordAssembler

PIECES = ("▁to", "mor", "row", ".", "▁l'", "anglais", "▁4", "00", "0", "▁", "<0xC3>", "<0xA9>")
TO, MOR, ROW, DOT, L, ANGLAIS, FOUR, ZEROS, ZERO = range(10, 19)
FLUSH = flush_frames(COUNTING_INFO)
WAIT = [PADDING] * 8


class Pieces:
    size = 10 + len(PIECES)

    def piece(self, token: int) -> str:
        return PIECES[token - 10] if token >= 10 else ""


class Model:
    """Emits the tokens of each turn in order, from the first frame of the turn's audio on, and padding after them."""

    def __init__(self, turns: Sequence[tuple[int, Sequence[int]]]) -> None:
        """`turns` has the frames of audio and the tokens of each turn."""
        self._starts: dict[int, Sequence[int]] = {}
        self._audio_frames = 0
        for frames, tokens in turns:
            self._starts[self._audio_frames] = tokens
            self._audio_frames += frames
        self._heard = 0
        self._waiting: deque[int] = deque()

    def __call__(self, row: Row) -> int:
        if not row.injected:
            self._waiting += self._starts.get(self._heard, ())
            self._heard += 1
        return self._waiting.popleft() if self._waiting else PADDING


def play(turns: Sequence[tuple[int, Sequence[int]]], *, asynchronous: bool = False) -> TokenStream:
    """Run turns with a flush after each of them but the last one, after which the stream ends."""
    stream = TokenStream(COUNTING_INFO, Pieces(), Model(turns), asynchronous)
    for number, (frames, _) in enumerate(turns):
        stream.push(frames)
        if number + 1 < len(turns):
            stream.flush(number)
        else:
            stream.finish()
    stream.run()
    return stream


def texts_of_turns(events: Sequence[EngineEvent]) -> list[str]:
    """Return the text of the words before each `Flushed` and before `Finished`."""
    texts: list[str] = []
    words: list[Word] = []
    for event in events:
        if isinstance(event, Word):
            words.append(event)
        elif isinstance(event, Flushed | Finished):
            texts.append(text_of_words(words))
            words = []
    return texts


def uninterrupted(tokens: Sequence[int]) -> str:
    """Return the text of the same tokens in one stream without a flush."""
    assembler = WordAssembler(Pieces(), COUNTING_INFO.delay_seconds)
    events = [event for token in tokens for event in assembler.step(token, 0.9)] + assembler.release()
    return text_of_words(event for event in events if isinstance(event, Word))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_late_pieces_belong_to_their_turn(asynchronous: bool) -> None:
    late = [*[PADDING] * 15, BOUNDARY, TO, MOR, PADDING, ROW, PADDING, PADDING, DOT]
    stream = play([(12, late), (12, [*WAIT, BOUNDARY, FOUR, ZEROS, PADDING, ZERO])], asynchronous=asynchronous)
    assert texts_of_turns(stream.events) == ["tomorrow.", "4000"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_flush_with_nothing_pending_takes_no_more_steps(asynchronous: bool) -> None:
    said = [*WAIT, BOUNDARY, TO, MOR, ROW, DOT]
    stream = TokenStream(COUNTING_INFO, Pieces(), Model([(40, said)]), asynchronous)
    stream.push(20)
    assert stream.run() == 20
    stream.flush(1)
    assert stream.run() == FLUSH
    stream.push(1)
    stream.finish()
    assert stream.run() == 1 + FLUSH + FINAL_FRAMES


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("last", range(8))
def test_flush_ends_once_words_are_complete(last: int, asynchronous: bool) -> None:
    """The last piece comes `last` frames after the end of the audio."""
    said = [*[PADDING] * (19 + last), TO]
    stream = TokenStream(COUNTING_INFO, Pieces(), Model([(20, said)]), asynchronous)
    stream.push(20)
    stream.flush(1)
    assert stream.run() == 20 + max(FLUSH, last + QUIET_FRAMES)
    assert texts_of_turns(stream.events) == ["to"]


def test_endless_text_does_not_hold_a_flush() -> None:
    stream = TokenStream(COUNTING_INFO, Pieces(), lambda row: ROW)
    stream.push(20)
    stream.flush(1)
    assert stream.run() == 20 + FLUSH + MOST_EXTRA_FRAMES
    assert stream.events[-1] == Flushed(1)


def test_second_of_silence_at_the_end() -> None:
    """The model is late by more than a flush; Kyutai's scripts run as many frames."""
    said = [*[PADDING] * (20 + FLUSH + FINAL_FRAMES - 2), BOUNDARY, TO, MOR, ROW]
    assert texts_of_turns(play([(20, said)]).events) == ["tomorrow"]


@given(
    st.lists(st.sampled_from([PADDING, PADDING, BOUNDARY, *range(10, 22)]), max_size=150),
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.booleans(),
)
@settings(max_examples=300)
def test_no_piece_is_lost_or_repeated(said: list[int], audio: list[int], asynchronous: bool) -> None:
    """Any tokens, with flushes at any place."""
    waiting = deque([*WAIT, *said])
    stream = TokenStream(COUNTING_INFO, Pieces(), lambda row: waiting.popleft() if waiting else PADDING, asynchronous)
    for number, frames in enumerate(audio):
        stream.push(frames)
        stream.flush(number)
    stream.push(1)
    stream.finish()
    stream.run()
    words = [event for event in stream.events if isinstance(event, Word)]
    assert text_of_words(words) == uninterrupted(stream.tokens)
    assert all(earlier.end <= later.start for earlier, later in pairwise(words))
    markers = [event for event in stream.events if isinstance(event, Flushed | Finished)]
    assert markers == [*map(Flushed, range(len(audio))), Finished()]


@st.composite
def utterances(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Draw frames of audio, and tokens of which the last ones come late, with up to two frames of padding between."""
    frames = draw(st.integers(9, 30))
    tokens = [*WAIT, BOUNDARY, draw(st.sampled_from([TO, L, FOUR]))]
    latest = frames + FLUSH + MOST_EXTRA_FRAMES - QUIET_FRAMES
    for piece in draw(st.lists(st.sampled_from(range(10, 18)), max_size=30)):
        pause = draw(st.sampled_from([[], [], [PADDING], [PADDING, PADDING], [BOUNDARY], [PADDING, BOUNDARY]]))
        if len(tokens) + len(pause) + 1 <= latest:
            tokens += [*pause, piece]
    return frames, tokens


@given(st.lists(utterances(), min_size=1, max_size=6), st.booleans())
@settings(max_examples=300)
def test_no_piece_moves_to_another_turn(turns: list[tuple[int, list[int]]], asynchronous: bool) -> None:
    stream = play(turns, asynchronous=asynchronous)
    assert texts_of_turns(stream.events) == [uninterrupted(tokens) for _, tokens in turns]


def test_progress_has_speech_by_energy() -> None:
    """Two of the last three frames, so one frame of a click is not speech, nor one of a stop consonant a pause."""
    levels = [1e-4] * 20 + [0.1, 1e-4, 1e-4, 0.1, 0.1, 1e-4, 0.1, 0.1, 1e-4, 1e-4, 1e-4]
    stream = TokenStream(COUNTING_INFO, Pieces(), lambda row: PADDING, level=lambda row: levels[row.number])
    stream.push(len(levels))
    stream.run()
    speech = [event.speech for event in stream.events if isinstance(event, Progress)]
    assert speech[20:] == [False, False, False, False, True, True, True, True, True, False, False]

"""The published tokens of kyutai/stt-2.6b-en give the published texts, through all parts from tokenizer to turns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.counting import COUNTING_INFO
from support.published_tokens import LEADING_FRAMES, ROWS, TEXTS, pieces
from support.token_streams import TokenStream

from tympan.config import TurnSettings
from tympan.engine.batching.scheduler import FINAL_FRAMES, Row
from tympan.engine.batching.step import flush_frames, prefix_frames
from tympan.messages import Finished, Partial, Progress, Segment, Turn, Word
from tympan.transcript.segments import Segmenter
from tympan.transcript.tokenizer import Tokenizer, load_tokenizer
from tympan.transcript.turns import TurnDetector
from tympan.transcript.words import PADDING

TOKENS = 4000
INFO = replace(COUNTING_INFO, delay_seconds=2.5, silence_prefix_seconds=1.0, turns_from="energy")
PREFIX = prefix_frames(INFO)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """A tokenizer file with the pieces of the rows; a token that is not in the rows has a piece that would be seen."""
    named = pieces()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    vocabulary = [[special[token] if token < 4 else named.get(token, f"▁?{token}"), 0.0] for token in range(TOKENS)]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return load_tokenizer(path, TOKENS)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("number", range(len(ROWS)))
def test_published_tokens_give_the_text(number: int, tokenizer: Tokenizer, asynchronous: bool) -> None:
    """The audio ends where the last word ends, so a part of its tokens comes in the silence at the end."""
    row = [PADDING] * LEADING_FRAMES + list(ROWS[number])
    first = LEADING_FRAMES - PREFIX - 31 + row[LEADING_FRAMES:].index(0)  # first frame of the speech
    audio = len(row) - PREFIX - 31
    heard = 0

    def level(row: Row) -> float:
        nonlocal heard
        heard += not row.injected
        return 0.1 if heard >= first else 1e-4

    def token(current: Row) -> int:
        return row[current.number] if current.number < len(row) else PADDING

    stream = TokenStream(INFO, tokenizer, token, asynchronous, level)
    stream.push(audio)
    stream.finish()
    assert stream.run() == PREFIX + audio + flush_frames(INFO) + FINAL_FRAMES
    assert stream.events[-1] == Finished()

    words, turns, segments = transcribe(stream)
    assert " ".join(word.text for word in words) == TEXTS[number]
    assert not any(word.glued for word in words)
    assert " ".join(segment.text for segment in segments) == TEXTS[number]
    assert [turn.state for turn in turns] == ["started", "ended"]
    # The word's boundary is at LM position 50 of the first row, 13 of which are the silence before the audio.
    assert words[0].start == pytest.approx(0.08 * (row.index(0) + 1 - PREFIX) - 2.48)
    assert all(0 <= word.start <= word.end <= audio * 0.08 + 1e-9 for word in words)


def transcribe(stream: TokenStream) -> tuple[list[Word], list[Turn], list[Segment]]:
    """Pass the events of a stream through the parts of a channel."""
    detector, segmenter = TurnDetector(TurnSettings(), INFO.pause_horizons), Segmenter(INFO.delay_seconds)
    words: list[Word] = []
    turns: list[Turn] = []
    segments: list[Segment] = []
    for event in stream.events:
        match event:
            case Word():
                words.append(event)
                turns += detector.word(event)
                segments += segmenter.word(event)
            case Partial():
                segmenter.partial(event)
            case Progress():
                turns += detector.progress(event)
                segments += segmenter.progress(event.time)
            case Finished():
                segments += segmenter.close()
                turns += detector.finish()
    return words, turns, segments

"""The page shows and writes a transcript as the command line does."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import asdict
from support.browser import Server, Visit

from tympan.messages import Segment, Word
from tympan.transcript.subtitles import to_srt, to_vtt
from tympan.transcript.transcript import Transcript

pytestmark = pytest.mark.browser


def test_same_subtitles_as_command_line(one_stream: Server, visit: Visit) -> None:
    dice = Random(7)
    transcripts = [random_transcript(dice) for _ in range(60)]
    visit.page.goto(one_stream.url)
    made = visit.page.evaluate(
        """async (transcripts) => {
            const { srt, vtt } = await import("/static/transcript/subtitles.js");
            return transcripts.map((segments) => [srt(segments), vtt(segments)]);
        }""",
        [segments_with_words(transcript) for transcript in transcripts],
    )
    assert made == [[to_srt(transcript), to_vtt(transcript)] for transcript in transcripts]


@pytest.mark.parametrize(("glued", "shown"), [(True, "the 400"), (False, "the 4 00")])
def test_partial_text_may_continue_the_word(one_stream: Server, visit: Visit, glued: bool, shown: str) -> None:
    visit.page.goto(one_stream.url)
    text = visit.page.evaluate(
        """async (glued) => {
            const { Sheet } = await import("/static/transcript/sheet.js");
            const { Transcript } = await import("/static/client/index.js");
            const [box, transcript] = [document.createElement("div"), new Transcript()];
            const sheet = new Sheet(box, document.createElement("div"));
            ["the", "4"].forEach((text, i) => transcript.word({ text, start: i, end: i + 1, confidence: 1 }));
            transcript.partial("00", 0, glued);
            sheet.show(transcript);
            return box.querySelector(".text").textContent;
        }""",
        glued,
    )
    assert text == shown


def random_transcript(dice: Random) -> Transcript:
    """Return words and pauses of random length, some of them overlapping, in random segments."""
    texts = ["a", "<b>", "&c", "-->", "counting", "antidisestablishmentarianism"]
    words: list[Word] = []
    segments: list[Segment] = []
    time = 0.1
    for _ in range(dice.randrange(1, 12)):
        part: list[Word] = []
        for _ in range(dice.randrange(1, 20)):
            start = round(time + dice.choice([-0.05, 0.0, 0.3, 0.69, 0.71, 2.0]), 2)
            time = round(start + dice.choice([0.08, 0.4, 1.5]), 2)
            part.append(Word(dice.choice(texts), start, time, 0.5))
        words += part
        segments.append(Segment(" ".join(word.text for word in part), part[0].start, part[-1].end))
    return Transcript("microphone", "embedded", time, words, segments)


def segments_with_words(transcript: Transcript) -> list[dict[str, Any]]:
    """Return the segments in the form of the page."""
    words = iter(transcript.words)
    return [
        {**asdict(segment), "words": [asdict(next(words)) for _ in segment.text.split()]}
        for segment in transcript.segments
    ]

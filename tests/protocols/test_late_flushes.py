"""An engine that is behind answers a flush after the audio that came since: turns are what they would have been."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.answers import answers

from tympan.messages import Complete, Event, Flush, Flushed, Ready, Vad, Word
from tympan.protocols.base import Request, ServerInfo, ServerProtocol
from tympan.protocols.deepgram.flux import FluxProtocol
from tympan.protocols.deepgram.live import DeepgramProtocol
from tympan.protocols.openai.realtime import TRANSCRIPTION, OpenAIProtocol

FRAME = 0.08
WORD_FRAMES = 5
DELAY_FRAMES = 6
OFFER = ServerInfo("scripted", "scripted", 24_000, 1_920, DELAY_FRAMES * FRAME, (0.5, 1.0, 2.0, 3.0), ("en",))
RAW = {"encoding": "linear16", "sample_rate": "16000"}


def stream(turns: list[tuple[int, int]]) -> Iterator[Event]:
    """Turns of so many words, each followed by so many frames of silence: every frame's `Vad`, and the words
    `DELAY_FRAMES` after their end. It begins with the silence in which the model is not believed.
    """
    released_at: dict[int, Word] = {}
    silence_of = [True] * 16
    for number, (words, silence) in enumerate(turns):
        for word in range(words):
            start = len(silence_of) * FRAME
            released_at[len(silence_of) + WORD_FRAMES + DELAY_FRAMES] = Word(
                f"{number}.{word}", start, start + WORD_FRAMES * FRAME, 0.9
            )
            silence_of += [False] * WORD_FRAMES
        silence_of += [True] * silence
    silent = 0
    for frame, silence_now in enumerate(silence_of, start=1):
        silent = silent + 1 if silence_now else 0
        yield Vad(round(frame * FRAME, 3), (min(1.0, silent / 4),) * 4)
        if frame in released_at:
            yield released_at[frame]


def play(protocol: ServerProtocol, events: Iterator[Event], late_frames: int) -> Iterator[dict[str, Any]]:
    """What the client is told when every flush is answered so many frames after it was asked for."""
    protocol.start()
    due: list[tuple[float, int]] = []
    now = 0.0

    def hear(event: Event) -> Iterator[dict[str, Any]]:
        for answer in answers(protocol, event):
            if isinstance(answer, Flush):
                due.append((now + late_frames * FRAME, answer.marker))
            else:
                yield json.loads(answer)

    yield from hear(Ready("id", "m", "e", 24_000, OFFER.delay_seconds, OFFER.pause_horizons))
    for event in events:
        now = event.time if isinstance(event, Vad) else now
        yield from hear(event)
        while due and due[0][0] <= now:
            yield from hear(Flushed(due.pop(0)[1]))
    for _, marker in due:
        yield from hear(Flushed(marker))
    yield from hear(Complete(now, 0))


def deepgram(told: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Each turn's text, and where it ends."""
    parts: list[str] = []
    for result in told:
        if result["type"] == "Results" and result["is_final"]:
            parts.append(result["channel"]["alternatives"][0]["transcript"])
            if result["speech_final"]:
                yield " ".join(filter(None, parts)), result["start"] + result["duration"]
                parts = []


def flux(told: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    turns = [turn for turn in told if turn.get("event") == "EndOfTurn"]
    yield from ((turn["transcript"], turn["audio_window_end"]) for turn in turns)


def openai(told: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    texts = [each["transcript"] for each in told if each["type"] == f"{TRANSCRIPTION}.completed"]
    ends = [each["audio_end_ms"] / 1000 for each in told if each["type"] == "input_audio_buffer.speech_stopped"]
    yield from zip(texts, ends, strict=True)


Turns = Callable[[list[dict[str, Any]]], Iterator[tuple[str, float]]]


@pytest.mark.parametrize(
    ("make", "query", "turns_of"),
    [
        (DeepgramProtocol, RAW, deepgram),
        (DeepgramProtocol, {**RAW, "interim_results": "true", "endpointing": "700"}, deepgram),
        (FluxProtocol, RAW, flux),
        (FluxProtocol, {**RAW, "eager_eot_threshold": "0.4"}, flux),
        (OpenAIProtocol, {}, openai),
    ],
)
@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(st.tuples(st.integers(1, 4), st.integers(20, 40)), min_size=1, max_size=5),
    late_frames=st.integers(0, 150),
)
def test_turns_are_split_where_they_were_decided_however_late_the_flush_is_answered(
    make: Callable[[Request, ServerInfo], ServerProtocol],
    query: dict[str, str],
    turns_of: Turns,
    turns: list[tuple[int, int]],
    late_frames: int,
) -> None:
    request = Request("/", query, {}, "00000000-0000-4000-8000-000000000000", 1.7e9)
    late = max(late_frames, DELAY_FRAMES)  # a flush brings the words that it is asked for
    told = list(turns_of(list(play(make(request, OFFER), stream(turns), late))))
    texts = [" ".join(f"{number}.{word}" for word in range(words)) for number, (words, _) in enumerate(turns)]
    assert [text for text, _ in told] == texts
    assert told == list(turns_of(list(play(make(request, OFFER), stream(turns), DELAY_FRAMES))))

"""An engine that is behind answers a flush after later audio; turns must end where they would without the delay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.protocols import LINEAR16, SESSION_ID, answers
from support.protocols import SERVER_INFO as SCRIPTED

from tympan.messages import Complete, Event, Flush, Flushed, Ready, Vad, Word
from tympan.protocols.base import Request, ServerInfo, ServerProtocol
from tympan.protocols.deepgram.flux import FluxProtocol
from tympan.protocols.deepgram.live import DeepgramProtocol
from tympan.protocols.openai.realtime import TRANSCRIPTION, OpenAIProtocol

FRAME = 0.08
WORD_FRAMES = 5
DELAY_FRAMES = 6
SERVER_INFO = replace(SCRIPTED, delay_seconds=DELAY_FRAMES * FRAME)


def stream(turns: list[tuple[int, int]]) -> Iterator[Event]:
    """Yield the events of turns, given as (words, frames of silence after them).

    The stream starts with the silence in which pause probabilities are ignored. Every frame has a `Vad`; every word is
    released `DELAY_FRAMES` after its end.
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
    """Yield the messages to the client if every flush is answered `late_frames` after it is requested."""
    protocol.start()
    due: list[tuple[float, int]] = []
    now = 0.0

    def send(event: Event) -> Iterator[dict[str, Any]]:
        for answer in answers(protocol, event):
            if isinstance(answer, Flush):
                due.append((now + late_frames * FRAME, answer.marker))
            else:
                yield answer

    yield from send(Ready("id", "m", "e", 24_000, SERVER_INFO.delay_seconds, SERVER_INFO.pause_horizons))
    for event in events:
        now = event.time if isinstance(event, Vad) else now
        yield from send(event)
        while due and due[0][0] <= now:
            yield from send(Flushed(due.pop(0)[1]))
    for _, marker in due:
        yield from send(Flushed(marker))
    yield from send(Complete(now, 0))


def deepgram(messages: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield the text and the end of each turn."""
    parts: list[str] = []
    for result in messages:
        if result["type"] == "Results" and result["is_final"]:
            parts.append(result["channel"]["alternatives"][0]["transcript"])
            if result["speech_final"]:
                yield " ".join(filter(None, parts)), result["start"] + result["duration"]
                parts = []


def flux(messages: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    turns = [turn for turn in messages if turn.get("event") == "EndOfTurn"]
    yield from ((turn["transcript"], turn["audio_window_end"]) for turn in turns)


def openai(messages: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    texts = [each["transcript"] for each in messages if each["type"] == f"{TRANSCRIPTION}.completed"]
    ends = [each["audio_end_ms"] / 1000 for each in messages if each["type"] == "input_audio_buffer.speech_stopped"]
    yield from zip(texts, ends, strict=True)


Turns = Callable[[list[dict[str, Any]]], Iterator[tuple[str, float]]]


@pytest.mark.parametrize(
    ("make", "query", "turns_of"),
    [
        (DeepgramProtocol, LINEAR16, deepgram),
        (DeepgramProtocol, {**LINEAR16, "interim_results": "true", "endpointing": "700"}, deepgram),
        (FluxProtocol, LINEAR16, flux),
        (FluxProtocol, {**LINEAR16, "eager_eot_threshold": "0.4"}, flux),
        (OpenAIProtocol, {}, openai),
    ],
)
@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(st.tuples(st.integers(1, 4), st.integers(20, 40)), min_size=1, max_size=5),
    late_frames=st.integers(0, 150),
)
def test_late_flush_does_not_move_turns(
    make: Callable[[Request, ServerInfo], ServerProtocol],
    query: dict[str, str],
    turns_of: Turns,
    turns: list[tuple[int, int]],
    late_frames: int,
) -> None:
    request = Request("/", query, {}, SESSION_ID, 1.7e9)
    late = max(late_frames, DELAY_FRAMES)  # a flush releases all words before it
    messages = list(turns_of(list(play(make(request, SERVER_INFO), stream(turns), late))))
    texts = [" ".join(f"{number}.{word}" for word in range(words)) for number, (words, _) in enumerate(turns)]
    assert [text for text, _ in messages] == texts
    assert messages == list(turns_of(list(play(make(request, SERVER_INFO), stream(turns), DELAY_FRAMES))))

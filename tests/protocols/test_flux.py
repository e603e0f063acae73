"""Deepgram Flux: turns start, pause, resume and end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.protocols import LINEAR16, SERVER_INFO, decoded

from tympan.errors import AudioError, FrameError, ParameterError, RestartingError
from tympan.messages import Audio, Complete, Event, Finish, Flush, Flushed, Partial, Ready, Vad, Word
from tympan.protocols.base import Request
from tympan.protocols.deepgram.flux import FluxProtocol
from tympan.protocols.deepgram.messages import turn_info
from tympan.transcript.turns import HOLDOFF_FRAMES

FRAME = 0.08
SPEECH, MAYBE, PAUSE = 0.1, 0.5, 0.9


def connect(**query: str) -> FluxProtocol:
    return FluxProtocol(Request("/v2/listen", query, {}, "an-id", 1.7e9), SERVER_INFO)


class Conversation:
    """A stream after its first second, in which pause probabilities are ignored.

    Attributes:
        messages: Messages to the client.
        flushes: Flushes that have not been answered.
    """

    def __init__(self, **query: str) -> None:
        self.protocol = connect(**LINEAR16, **query)
        self.protocol.start()
        self.messages: list[dict[str, Any]] = []
        self.flushes: list[Flush] = []
        self.frame = 0
        self.send(Ready("an-id", "m", "e", 24_000, 0.48, SERVER_INFO.pause_horizons))
        self.frames(SPEECH, HOLDOFF_FRAMES + 1)

    def send(self, event: Event) -> None:
        self._take(self.protocol.send(event, 0))

    def receive(self, **command: Any) -> None:
        self._take(self.protocol.receive(json.dumps(command)))

    def _take(self, actions: Iterable[Any]) -> None:
        for action in decoded(actions):
            (self.flushes if isinstance(action, Flush) else self.messages).append(action)

    def frames(self, pause: float, count: int = 1) -> None:
        for _ in range(count):
            self.frame += 1
            self.send(Vad(round(self.frame * FRAME, 2), (pause,) * 4))

    def word(self, text: str) -> None:
        """Release a word that ended with the previous frame."""
        time = round((self.frame - 1) * FRAME, 2)
        self.send(Word(text, time, time, 0.9))

    def flushed(self) -> None:
        self.send(Flushed(self.flushes.pop(0).marker))

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The event and the transcript of every `TurnInfo`."""
        return [(each["event"], each["transcript"]) for each in self.messages if each["type"] == "TurnInfo"]


def test_turn_from_start_to_end() -> None:
    talk = Conversation()
    talk.word("hello")
    talk.word("world")
    talk.frames(PAUSE)
    assert talk.turns == [("StartOfTurn", "hello"), ("Update", "hello world")]
    talk.word("again")  # released by the flush
    talk.flushed()
    assert talk.turns[2:] == [("Update", "hello world again"), ("EndOfTurn", "hello world again")]
    assert [each["sequence_id"] for each in talk.messages] == list(range(5))
    assert talk.messages[0] == {"type": "Connected", "request_id": "an-id", "sequence_id": 0}
    end = talk.messages[-1]
    assert (end["turn_index"], end["trigger"], end["end_of_turn_confidence"]) == (0, "model", PAUSE)
    assert end["words"][0] == {"word": "hello", "confidence": 0.9, "start": 0.96, "end": 0.96}
    assert (end["audio_window_start"], end["audio_window_end"]) == (0.96, 1.12)
    assert not any("trigger" in each for each in talk.messages[:-1])


def test_next_turn_starts_anew() -> None:
    talk = Conversation()
    for text in ("one", "two"):
        talk.word(text)
        talk.frames(PAUSE)
        talk.flushed()
        talk.frames(SPEECH)
    ends = [each for each in talk.messages if each.get("event") == "EndOfTurn"]
    assert [(end["turn_index"], end["transcript"]) for end in ends] == [(0, "one"), (1, "two")]
    assert ends[1]["audio_window_start"] >= ends[0]["audio_window_end"]


def test_partial_word_starts_turn() -> None:
    talk = Conversation()
    talk.send(Partial("hel", 1.0))
    assert talk.turns == [("StartOfTurn", "hel")]
    assert talk.messages[-1]["words"] == [{"word": "hel", "confidence": 0.0, "start": 1.0}]
    talk.word("hello")
    assert talk.turns[1:] == [("Update", "hello")]


def test_partial_word_continues_the_last_word() -> None:
    words = [Word("4", 0.5, 0.8, 0.9)]
    turn = turn_info("EagerEndOfTurn", 0, 0.0, 2.0, words, Partial("00 horses", 1.0, glued=True), 0.5)
    assert turn["transcript"] == "400 horses"
    assert [(each["word"], each["confidence"]) for each in turn["words"]] == [("400", 0.0), ("horses", 0.0)]
    turn = turn_info("StartOfTurn", 0, 0.0, 2.0, [], Partial("00", 1.0, glued=True), 0.5)
    assert turn["transcript"] == "00"


def test_eager_end_is_flushed_and_resumed() -> None:
    talk = Conversation(eager_eot_threshold="0.4")
    talk.word("hello")
    talk.frames(MAYBE)
    assert talk.turns == [("StartOfTurn", "hello")]
    talk.flushed()
    talk.word("world")
    talk.frames(PAUSE)
    talk.flushed()
    assert talk.turns[1:] == [
        ("EagerEndOfTurn", "hello"),
        ("TurnResumed", "hello world"),
        ("EndOfTurn", "hello world"),
    ]


def test_last_flush_resumes_eager_end() -> None:
    talk = Conversation(eager_eot_threshold="0.4")
    talk.word("hello")
    talk.frames(MAYBE)
    talk.flushed()
    talk.frames(PAUSE)
    talk.word("world")
    talk.word("again")
    talk.flushed()
    assert talk.turns[1:] == [
        ("EagerEndOfTurn", "hello"),
        ("TurnResumed", "hello world"),
        ("Update", "hello world again"),
        ("EndOfTurn", "hello world again"),
    ]


def test_turn_timeout() -> None:
    talk = Conversation(eot_timeout_ms="1000")
    talk.word("hello")
    talk.frames(SPEECH, 14)
    talk.flushed()
    assert talk.messages[-1]["trigger"] == "timeout"


def test_threshold_1_leaves_turns_to_client() -> None:
    talk = Conversation(eot_threshold="1.0", eot_timeout_ms="30000")
    talk.word("hello")
    talk.frames(1.0, 300)
    assert (talk.turns, talk.flushes) == ([("StartOfTurn", "hello")], [])
    talk.receive(type="ForceEndTurn")
    talk.flushed()
    assert talk.turns[1:] == [("EndOfTurn", "hello")]
    assert talk.messages[-1]["trigger"] == "manual"


def test_force_end_turn_is_always_answered() -> None:
    talk = Conversation()
    talk.word("hello")
    for _ in range(2):
        talk.receive(type="ForceEndTurn")
    for _ in range(2):
        talk.flushed()
    assert talk.turns[1:] == [("EndOfTurn", "hello"), ("EndOfTurn", "")]
    assert [each["turn_index"] for each in talk.messages[-2:]] == [0, 1]
    assert talk.messages[-1]["words"] == []


def test_stale_flush_does_not_end_next_turn() -> None:
    talk = Conversation(eager_eot_threshold="0.4")
    talk.word("one")
    talk.receive(type="ForceEndTurn")
    talk.frames(PAUSE)
    talk.flushed()
    talk.word("two")
    talk.frames(SPEECH)
    talk.frames(MAYBE)
    talk.flushed()
    assert talk.turns[1:] == [("EndOfTurn", "one"), ("StartOfTurn", "two")]
    talk.flushed()
    assert talk.turns[3:] == [("EagerEndOfTurn", "two")]


@pytest.mark.parametrize(
    ("given", "effective"),
    [
        ({"eot_threshold": 0.9, "eager_eot_threshold": 0.5}, (0.9, 0.5, 2000)),
        ({"eot_timeout_ms": 60000.0}, (0.8, 0.4, 60000)),
        ({"eot_threshold": "1.0"}, (1.0, 0.4, 2000)),  # Deepgram's package types it as any
        ({"eot_threshold": None, "eot_timeout_ms": None, "eager_eot_threshold": None}, (0.7, None, 5000)),
        ({"unknown": 1}, (0.8, 0.4, 2000)),
        (None, (0.8, 0.4, 2000)),
    ],
)
def test_configure(given: Any, effective: tuple[float, float | None, int]) -> None:
    talk = Conversation(eot_threshold="0.8", eager_eot_threshold="0.4", eot_timeout_ms="2000")
    talk.receive(type="Configure", thresholds=given, keyterms=["Tympan"])
    assert talk.messages[-1] == {
        "type": "ConfigureSuccess",
        "request_id": "an-id",
        "sequence_id": 1,
        "thresholds": dict(zip(("eot_threshold", "eager_eot_threshold", "eot_timeout_ms"), effective, strict=True)),
        "keyterms": [],
    }


@pytest.mark.parametrize(
    "given",
    [
        *({"eot_threshold": 0.4}, {"eot_threshold": 1.1}, {"eager_eot_threshold": 0.2}, {"eot_timeout_ms": 499}),
        *({"eot_timeout_ms": 60001}, {"eot_timeout_ms": 1000.5}, {"eot_timeout_ms": 10**30}, {"eot_threshold": "high"}),
        *({"eot_threshold": [0.8]}, [1], 5, "0.8"),
    ],
)
def test_configure_with_invalid_thresholds(given: Any) -> None:
    talk = Conversation(eot_threshold="0.8")
    talk.receive(type="Configure", thresholds=given)
    failure = talk.messages[-1]
    assert (failure["type"], failure["sequence_id"]) == ("ConfigureFailure", 1)
    assert failure["code"]
    assert failure["description"]
    talk.receive(type="Configure")
    assert talk.messages[-1]["thresholds"]["eot_threshold"] == 0.8


@pytest.mark.parametrize(
    "query",
    [
        *({"eot_threshold": "1.1"}, {"eot_threshold": "nan"}, {"eot_threshold": "high"}, {"eager_eot_threshold": "0"}),
        *({"eot_timeout_ms": "60001"}, {"eot_timeout_ms": "1e999"}),
    ],
)
def test_invalid_parameters(query: dict[str, str]) -> None:
    with pytest.raises(ParameterError):
        connect(**LINEAR16, **query).start()


def test_two_channels_are_mixed() -> None:
    assert connect(**LINEAR16, channels="2").start().mixed


def test_audio_and_close_stream() -> None:
    talk = Conversation()
    assert talk.protocol.receive(b"\0\0") == (Audio(b"\0\0"),)
    assert talk.protocol.receive('{"type": "Unknown"}') == ()
    assert talk.protocol.receive('{"type": "CloseStream"}') == (Finish(),)
    assert talk.protocol.receive('{"type": "ForceEndTurn"}') == ()  # ignored after the end
    assert Conversation().protocol.receive(b"") == (Finish(),)


def test_end_of_stream_ends_open_turn() -> None:
    talk = Conversation()
    talk.word("hello")
    talk.send(Complete(1.0, 1))
    assert talk.turns[1:] == [("EndOfTurn", "hello")]
    talk.send(Complete(1.0, 1))
    assert len(talk.turns) == 2


def test_close() -> None:
    talk = Conversation()
    close_info = talk.protocol.fail(AudioError("no audio"))
    (error,) = close_info.messages
    assert json.loads(error) == {
        "type": "Error",
        "request_id": "an-id",
        "sequence_id": 1,
        "code": AudioError.code.upper(),
        "description": "no audio",
    }
    assert close_info.code == 1007
    assert (talk.protocol.fail(None).code, talk.protocol.fail(None).messages) == (1000, ())
    assert talk.protocol.fail(RestartingError("later")).code == 1012
    with pytest.raises(FrameError):
        talk.protocol.receive("no object")


FOLLOWS = {
    "EndOfTurn": {"StartOfTurn", "EndOfTurn"},  # a forced end without speech
    "StartOfTurn": {"Update", "EagerEndOfTurn", "EndOfTurn"},
    "Update": {"Update", "EagerEndOfTurn", "EndOfTurn"},
    "TurnResumed": {"Update", "EagerEndOfTurn", "EndOfTurn"},
    "EagerEndOfTurn": {"TurnResumed", "EndOfTurn"},
}
STEPS = st.lists(st.sampled_from(["word", "force", "flushed", SPEECH, MAYBE, PAUSE]), max_size=80)


@given(steps=STEPS)
def test_event_order(steps: list[str | float]) -> None:
    talk = Conversation(eager_eot_threshold="0.4", eot_timeout_ms="500")
    forced = words = 0
    for step in steps:
        if step == "word":
            words += 1
            talk.word(str(words))
        elif step == "force":
            forced += 1
            talk.receive(type="ForceEndTurn")
        elif step == "flushed":
            if talk.flushes:
                talk.flushed()
        else:
            talk.frames(float(step))
    while talk.flushes:
        talk.flushed()
    talk.send(Complete(1.0, words))
    turns = [each for each in talk.messages if each["type"] == "TurnInfo"]
    last: dict[str, Any] = {"event": "EndOfTurn", "turn_index": -1, "transcript": ""}
    for turn in turns:
        assert turn["event"] in FOLLOWS[last["event"]]
        assert turn["turn_index"] == last["turn_index"] + (last["event"] == "EndOfTurn")
        if last["event"] == "EagerEndOfTurn" and turn["event"] == "EndOfTurn":
            assert turn["transcript"] == last["transcript"] != ""
        last = turn
    ends = [turn for turn in turns if turn["event"] == "EndOfTurn"]
    assert sum(turn["trigger"] == "manual" for turn in ends) == forced
    assert " ".join(turn["transcript"] for turn in ends).split() == [str(number + 1) for number in range(words)]
    assert [each["sequence_id"] for each in talk.messages] == list(range(len(talk.messages)))

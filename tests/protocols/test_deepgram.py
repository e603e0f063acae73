"""Deepgram's live protocol: messages and events in, commands and messages out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.protocols import LINEAR16, SERVER_INFO, answers

from tympan.errors import AccessError, AudioError, CapacityError, FrameError, IdleError, ParameterError, RestartingError
from tympan.messages import Audio, AudioFormat, Complete, Finish, Flush, Flushed, KeepAlive, Partial, Vad, Word
from tympan.protocols.base import Droppable, Refusal, Request
from tympan.protocols.deepgram.live import MAX_RESULT_SECONDS, DeepgramProtocol
from tympan.protocols.deepgram.messages import model_id, strip_punctuation

SPEECH, SILENCE = (0.0,) * 4, (1.0,) * 4
HELLO, WORLD = Word("Hello,", 0.1, 0.4, 0.8), Word("World.", 0.5, 0.9, 0.6)


def connect(headers: dict[str, str] | None = None, **query: str) -> DeepgramProtocol:
    return DeepgramProtocol(Request("/v1/listen", query, headers or {}, "an-id", 1.7e9), SERVER_INFO)


def started(**query: str) -> DeepgramProtocol:
    protocol = connect(**LINEAR16, **query)
    protocol.start()
    return protocol


def transcript(result: dict[str, Any]) -> str:
    text = result["channel"]["alternatives"][0]["transcript"]
    assert isinstance(text, str)
    return text


def flush_of(protocol: DeepgramProtocol, text: str) -> Flush:
    (action,) = protocol.receive(text)
    assert isinstance(action, Flush)
    return action


def silence(protocol: DeepgramProtocol, start: float, end: float, channel: int = 0) -> list[Any]:
    frames = range(round(start * 100), round(end * 100), 8)
    return answers(protocol, *(Vad(frame / 100, SILENCE) for frame in frames), channel=channel)


def test_result_fields() -> None:
    assert answers(started(interim_results="true"), HELLO) == [
        {
            "type": "Results",
            "channel_index": [0, 1],
            "start": 0.0,
            "duration": 0.4,
            "is_final": False,
            "speech_final": False,
            "from_finalize": False,
            "channel": {
                "alternatives": [
                    {
                        "transcript": "Hello,",
                        "confidence": 0.8,
                        "words": [
                            {"word": "hello", "start": 0.1, "end": 0.4, "confidence": 0.8, "punctuated_word": "Hello,"}
                        ],
                    }
                ]
            },
            "metadata": {
                "request_id": "an-id",
                "model_uuid": model_id(SERVER_INFO),
                "model_info": {"name": "scripted", "version": "scripted", "arch": "delayed-streams"},
            },
        }
    ]


def test_interim_results_grow() -> None:
    protocol = started(interim_results="true")
    first, second = answers(protocol, HELLO, Partial("Wor", 0.5), WORLD)
    assert (first["start"], transcript(first)) == (0.0, "Hello,")
    assert (second["start"], second["duration"], transcript(second)) == (0.0, 0.9, "Hello, World.")
    assert all(isinstance(answer, Droppable) for answer in protocol.send(Word("and", 1.0, 1.1, 1.0), 0))
    assert answers(started(), HELLO, WORLD) == []


def test_endpoint_is_flushed_before_its_result() -> None:
    protocol = started(interim_results="true", endpointing="300", vad_events="true")
    spoken, interim = answers(protocol, HELLO)
    assert spoken == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.1}
    assert not interim["is_final"]
    flushes = silence(protocol, 0.5, 1.0)
    assert len(flushes) == 1
    assert isinstance(flushes[0], Flush)
    answers(protocol, WORLD)  # released by the flush, so part of the turn
    (final,) = answers(protocol, Flushed(flushes[0].marker))
    assert (final["is_final"], final["speech_final"], final["from_finalize"]) == (True, True, False)
    assert transcript(final) == "Hello, World."
    assert answers(protocol, Word("Again", 2.0, 2.2, 1.0))[0]["type"] == "SpeechStarted"


def test_endpointing_off() -> None:
    protocol = started(endpointing="false")
    assert answers(protocol, HELLO) + silence(protocol, 0.5, 9.0) == []


def test_finalize_is_always_answered() -> None:
    protocol = started()
    answers(protocol, HELLO)
    first, second = (flush_of(protocol, '{"type": "Finalize"}') for _ in range(2))
    (full,), (empty,) = answers(protocol, Flushed(first.marker)), answers(protocol, Flushed(second.marker))
    assert transcript(full) == "Hello,"
    assert (transcript(empty), empty["duration"]) == ("", 0.0)
    assert full["from_finalize"]
    assert empty["from_finalize"]


def test_finalize_supersedes_pending_endpoint() -> None:
    protocol = started()
    answers(protocol, HELLO)
    (endpoint,) = silence(protocol, 0.5, 1.0)
    finalize = flush_of(protocol, '{"type": "Finalize"}')
    (final,) = answers(protocol, Flushed(finalize.marker))
    assert final["from_finalize"]
    assert answers(protocol, Flushed(endpoint.marker)) == []


@pytest.mark.parametrize(("asked", "answered"), [("1", [1]), ("9", [0, 1]), ('"x"', [0, 1]), ("[1]", [0, 1])])
def test_finalize_one_channel(asked: str, answered: list[int]) -> None:
    protocol = started(channels="2", multichannel="true")
    flush = flush_of(protocol, f'{{"type": "Finalize", "channel": {asked}}}')
    assert [final["channel_index"] for final in answers(protocol, Flushed(flush.marker))] == [[c, 2] for c in answered]


def test_long_speech_is_split() -> None:
    protocol = started()
    words = [Word(f"w{i}", i * 0.5, i * 0.5 + 0.4, 1.0) for i in range(30)]
    finals = answers(protocol, *words)
    assert len(finals) == 3
    assert not any(final["speech_final"] for final in finals)
    assert all(final["duration"] <= MAX_RESULT_SECONDS + 1 for final in finals)


def test_leading_silence_does_not_split() -> None:
    (result,) = answers(started(interim_results="true"), Word("Late", 10.0, 10.4, 1.0))
    assert not result["is_final"]
    assert (result["start"], result["duration"]) == (0.0, 10.4)


def test_utterance_end_after_gap() -> None:
    protocol = started(interim_results="true", utterance_end_ms="1000", endpointing="false")
    answers(protocol, HELLO)
    # The gap is 1 s plus the delay of the model, which has not released the words of this time yet.
    assert silence(protocol, 0.4, 1.8) == []
    final, end = silence(protocol, 1.88, 9.0)
    assert (final["is_final"], transcript(final)) == (True, "Hello,")
    assert end == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 0.4}


def test_utterance_end_requires_interim_results() -> None:
    protocol = started(utterance_end_ms="1000", endpointing="false")
    assert answers(protocol, HELLO) + silence(protocol, 0.4, 9.0) == []


def test_two_channels() -> None:
    protocol = started(channels="2", multichannel="true", interim_results="true")
    assert [answers(protocol, HELLO, channel=c)[0]["channel_index"] for c in (1, 0)] == [[1, 2], [0, 2]]
    left, right, metadata = answers(protocol, Complete(3.0, 2))
    assert [left["channel_index"], right["channel_index"]] == [[0, 2], [1, 2]]
    assert metadata["channels"] == 2


STEPS = st.lists(st.sampled_from(["word", "gap", "finalize", "flushed"]), max_size=60)


@given(STEPS)
def test_final_results_cover_all_words_and_time(steps: list[str]) -> None:
    protocol = started(interim_results="true", utterance_end_ms="1000", vad_events="true")
    now, waiting, results, texts = 0.0, [], [], []
    for step in [*steps, "flushed"]:
        if step == "word":
            texts.append(f"w{len(texts)}")
            new = answers(protocol, Word(texts[-1], now, now + 0.3, 1.0), Vad(now + 0.3, SPEECH))
            now += 0.3
        elif step == "gap":
            new = silence(protocol, now, now + 0.8)
            now += 0.8
        elif step == "finalize":
            new = [flush_of(protocol, '{"type": "Finalize"}')]
        else:
            new = answers(protocol, *map(Flushed, waiting))
            waiting.clear()
        waiting += [answer.marker for answer in new if isinstance(answer, Flush)]
        results += [answer for answer in new if not isinstance(answer, Flush) and answer["type"] == "Results"]
    results += [answer for answer in answers(protocol, Complete(now, 0)) if answer["type"] == "Results"]
    finals = [result for result in results if result["is_final"]]
    assert " ".join(filter(None, map(transcript, finals))).split() == texts
    assert steps.count("finalize") == sum(final["from_finalize"] for final in finals)
    end = 0.0
    for result in results:
        assert result["start"] == pytest.approx(end, abs=0.002)
        assert result["duration"] >= 0
        end = result["start"] + result["duration"] if result["is_final"] else end


def test_commands() -> None:
    protocol = started()
    assert protocol.receive(b"\0") == (Audio(b"\0"),)
    assert protocol.receive('{"type": "KeepAlive"}') == (KeepAlive(),)
    assert protocol.receive('{"type": "Dance"}') == ()
    assert protocol.receive("{}") == ()
    (configured,) = protocol.receive('{"type": "Configure", "keyterms": ["tympan"]}')
    assert isinstance(configured, str)
    assert json.loads(configured) == {"type": "ConfigureSuccess", "keyterms": [], "request_id": "an-id"}
    assert protocol.receive('{"type": "CloseStream"}') == (Finish(),)
    assert protocol.receive('{"type": "Finalize"}') == ()


def test_empty_frame_ends_stream() -> None:
    assert started().receive(b"") == (Finish(),)


@pytest.mark.parametrize("text", ["", "[]", "null", "hello", '{"type"', "\ud800"])
def test_invalid_text_frame(text: str) -> None:
    with pytest.raises(FrameError, match="KeepAlive"):
        started().receive(text)


def test_metadata_is_last() -> None:
    protocol = started()
    protocol.receive(b"abc")
    final, metadata = answers(protocol, HELLO, Complete(1.5, 1))
    assert (final["speech_final"], final["duration"]) == (True, 1.5)
    assert metadata == {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "an-id",
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "created": "2023-11-14T22:13:20.000+00:00",
        "duration": 1.5,
        "channels": 1,
    }


@pytest.mark.parametrize(
    ("query", "audio_format"),
    [
        ({}, AudioFormat("auto", 24_000, 1, mixed=True)),
        (LINEAR16, AudioFormat("s16le", 16_000, 1, mixed=True)),
        ({"encoding": "linear32", "sample_rate": "48000"}, AudioFormat("f32le", 48_000, 1, mixed=True)),
        ({"encoding": "mulaw", "sample_rate": "8000"}, AudioFormat("mulaw", 8_000, 1, mixed=True)),
        ({"encoding": "flac"}, AudioFormat("auto", 24_000, 1, mixed=True)),
        ({"encoding": "ogg-opus"}, AudioFormat("opus", 24_000, 1, mixed=True)),
        ({**LINEAR16, "channels": "2"}, AudioFormat("s16le", 16_000, 2, mixed=True)),
        ({**LINEAR16, "channels": "2", "multichannel": "true"}, AudioFormat("s16le", 16_000, 2)),
        ({**LINEAR16, "endpointing": "soon", "utterance_end_ms": "-1", "keyterm": "a", "callback": "x"}, None),
    ],
)
def test_parameters(query: dict[str, str], audio_format: AudioFormat | None) -> None:
    assert connect(**query).start() == (audio_format or AudioFormat("s16le", 16_000, 1, mixed=True))


@pytest.mark.parametrize("codec", ["amr-nb", "AMR-WB", "speex", "g729"])
def test_unsupported_codec(codec: str) -> None:
    with pytest.raises(ParameterError, match=r"not supported; use linear16"):
        connect(encoding=codec).start()


@pytest.mark.parametrize(
    "query", [{"encoding": "linear16"}, {**LINEAR16, "channels": "3"}, {**LINEAR16, "sample_rate": "NaN"}]
)
def test_invalid_parameters(query: dict[str, str]) -> None:
    with pytest.raises(ParameterError):
        connect(**query).start()


@pytest.mark.parametrize(
    ("headers", "key", "echoed"),
    [
        ({"authorization": "Token KEY"}, "KEY", None),
        ({"authorization": "bearer JWT"}, "JWT", None),
        ({"authorization": "Basic KEY"}, None, None),
        ({"sec-websocket-protocol": "token, KEY"}, "KEY", "token"),
        ({"sec-websocket-protocol": "bearer,JWT"}, "JWT", "bearer"),
        ({}, None, None),
    ],
)
def test_credential(headers: dict[str, str], key: str | None, echoed: str | None) -> None:
    protocol = connect(headers)
    assert protocol.credential() == key
    assert (protocol.accept().subprotocol, protocol.accept().headers) == (echoed, {"dg-request-id": "an-id"})


def test_refusals() -> None:
    for error, status, code in (
        (AccessError("no"), 401, "INVALID_AUTH"),
        (ParameterError("no"), 400, "Bad Request"),
        (CapacityError("full", 7), 429, "TOO_MANY_REQUESTS"),
        (RestartingError("soon"), 503, "SERVICE_UNAVAILABLE"),
    ):
        refusal = connect().refuse(error)
        assert isinstance(refusal, Refusal)
        assert refusal.status == status
        assert json.loads(refusal.body) == {"err_code": code, "err_msg": str(error), "request_id": "an-id"}
        assert (refusal.headers["dg-request-id"], refusal.headers["dg-error"]) == ("an-id", code)


def test_close() -> None:
    assert started().fail(None).code == 1000
    for error, code, reason in ((AudioError("noise"), 1008, "DATA-0000"), (IdleError("quiet"), 1011, "NET-0001")):
        close_info = started().fail(error)
        assert (close_info.code, close_info.reason.split(":")[0]) == (code, reason)
        (message,) = map(json.loads, close_info.messages)
        assert (message["type"], message["description"]) == ("Error", str(error))


@pytest.mark.parametrize(
    ("text", "word"), [("Hello,", "hello"), ("«Été»", "été"), ("don't", "don't"), ("...", "..."), ("U.S.", "u.s")]
)
def test_strip_punctuation(text: str, word: str) -> None:
    assert strip_punctuation(text) == word

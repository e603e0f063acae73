"""Deepgram's own package: live v1, Flux, files, tokens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clients import KEY, MAX_ERROR_RATE, TEXT, chunks, pcm, speech, wav
from support.server import LiveServer
from support.speech import clip, word_error_rate

deepgram = pytest.importorskip("deepgram")
pytestmark = pytest.mark.clients


def environment(server: LiveServer) -> Any:
    http, ws = f"http://127.0.0.1:{server.port}", f"ws://127.0.0.1:{server.port}"
    return deepgram.DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)


def client(server: LiveServer, **credentials: str) -> Any:
    return deepgram.DeepgramClient(environment=environment(server), **(credentials or {"api_key": KEY}))


def async_client(server: LiveServer, **credentials: str) -> Any:
    return deepgram.AsyncDeepgramClient(environment=environment(server), **(credentials or {"api_key": KEY}))


LIVE = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16_000, "channels": 1}


def converse(socket: Any, audio: bytes) -> list[Any]:
    """Send all audio, close the stream and return all messages."""
    for chunk in chunks(audio, 3200):
        socket.send_media(chunk)
    socket.send_close_stream()
    messages = list(socket)
    assert socket._websocket.close_code == 1000
    return messages


def of(messages: list[Any], kind: str) -> list[Any]:
    return [message for message in messages if message.type == kind]


def transcript(results: list[Any]) -> str:
    return " ".join(filter(None, (result.channel.alternatives[0].transcript for result in results)))


def check_results(messages: list[Any], seconds: float) -> list[Any]:
    """Check that final results cover the time without gaps and that words are in order; return the final results."""
    finals = [result for result in of(messages, "Results") if result.is_final]
    assert word_error_rate(TEXT, transcript(finals)) <= MAX_ERROR_RATE
    end = 0.0
    for result in finals:
        assert result.start == pytest.approx(end, abs=0.002)
        end = result.start + result.duration
    words = [word for result in finals for word in result.channel.alternatives[0].words]
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert all(0 <= word.start <= word.end <= seconds + 0.1 for word in words)
    assert messages[-1].type == "Metadata"
    assert messages[-1].duration == pytest.approx(seconds, abs=0.1)
    return finals


def test_live_sync(server: LiveServer) -> None:
    samples = speech(16_000)
    with client(server).listen.v1.connect(**LIVE, interim_results=True, endpointing=300, vad_events=True) as socket:
        messages = converse(socket, pcm(samples))
    finals = check_results(messages, len(samples) / 16_000)
    assert sum(result.speech_final for result in finals) >= 2
    assert len(of(messages, "SpeechStarted")) >= 2
    interims = [result for result in of(messages, "Results") if not result.is_final]
    assert interims
    assert not any(result.speech_final for result in interims)


async def test_live_async(server: LiveServer) -> None:
    samples = speech(16_000)
    async with async_client(server).listen.v1.connect(**LIVE) as socket:
        for chunk in chunks(pcm(samples), 3200):
            await socket.send_media(chunk)
        await socket.send_close_stream()
        messages = [message async for message in socket]
    finals = check_results(messages, len(samples) / 16_000)
    assert len(of(messages, "Results")) == len(finals)  # no interims unless asked for


def test_finalize_is_always_answered(server: LiveServer) -> None:
    with client(server).listen.v1.connect(**LIVE, endpointing="false") as socket:
        socket.send_media(clip("counting").pcm(16_000))
        socket.send_finalize()
        socket.send_finalize()
        socket.send_keep_alive()
        answers: list[Any] = []
        for message in socket:
            answers.append(message)
            if sum(bool(answer.from_finalize) for answer in of(answers, "Results")) == 2:
                break
        socket.send_close_stream()
        rest = list(socket)
    finalized = [answer for answer in of(answers, "Results") if answer.from_finalize]
    assert word_error_rate(clip("counting").text, transcript(finalized[:1])) <= MAX_ERROR_RATE
    assert transcript(finalized[1:]) == ""
    assert [message.type for message in rest] == ["Metadata"]


def test_two_channels(server: LiveServer) -> None:
    left, right = clip("counting").pcm(16_000), clip("six_to_ten").pcm(16_000)
    size = max(len(left), len(right))
    both = [channel.ljust(size, b"\0") for channel in (left, right)]
    stereo = b"".join(both[0][i : i + 2] + both[1][i : i + 2] for i in range(0, size, 2))
    with client(server).listen.v1.connect(**{**LIVE, "channels": 2}, multichannel=True) as socket:
        messages = converse(socket, stereo)
    transcripts = [
        transcript([result for result in of(messages, "Results") if result.channel_index == [channel, 2]])
        for channel in (0, 1)
    ]
    assert word_error_rate(clip("counting").text, transcripts[0]) <= MAX_ERROR_RATE
    assert word_error_rate(clip("six_to_ten").text, transcripts[1]) <= MAX_ERROR_RATE
    assert messages[-1].channels == 2


def test_file(server: LiveServer) -> None:
    samples = speech(16_000)
    answer = client(server).listen.v1.media.transcribe_file(
        request=wav(samples, 16_000), model="nova-3", utterances=True
    )
    assert word_error_rate(TEXT, answer.results.channels[0].alternatives[0].transcript) <= MAX_ERROR_RATE
    assert answer.metadata.duration == pytest.approx(len(samples) / 16_000, abs=0.1)
    assert len(answer.results.utterances) >= 2


def test_token_opens_stream(server: LiveServer) -> None:
    grant = client(server).auth.v1.tokens.grant(ttl_seconds=30)
    assert grant.expires_in == 30
    with client(server, access_token=grant.access_token).listen.v1.connect(**LIVE) as socket:
        messages = converse(socket, clip("counting").pcm(16_000))
    assert word_error_rate(clip("counting").text, transcript(of(messages, "Results"))) <= MAX_ERROR_RATE


def test_wrong_key(server: LiveServer) -> None:
    from deepgram.core.api_error import ApiError
    from websockets.exceptions import InvalidStatus

    wrong = client(server, api_key="wrong")
    with pytest.raises((ApiError, InvalidStatus)) as refused, wrong.listen.v1.connect(**LIVE):
        pass
    assert "401" in str(refused.value)
    with pytest.raises(ApiError) as refused_file:
        wrong.listen.v1.media.transcribe_file(request=wav(speech(16_000), 16_000))
    assert refused_file.value.status_code == 401
    assert refused_file.value.body["err_code"] == "INVALID_AUTH"


FLUX = {"model": "flux-general-en", "encoding": "linear16", "sample_rate": 16_000}


def check_turns(messages: list[Any], seconds: float) -> None:
    """Check that turns start and end alternately, are numbered, and contain all words."""
    assert messages[0].type == "Connected"
    assert [message.sequence_id for message in messages] == list(range(len(messages)))
    turns = of(messages, "TurnInfo")
    starts_and_ends = [turn for turn in turns if turn.event in ("StartOfTurn", "EndOfTurn")]
    assert [turn.event for turn in starts_and_ends] == ["StartOfTurn", "EndOfTurn"] * (len(starts_and_ends) // 2)
    ends = [turn for turn in turns if turn.event == "EndOfTurn"]
    assert [turn.turn_index for turn in ends] == list(range(len(ends)))
    assert len(ends) >= 2
    assert word_error_rate(TEXT, " ".join(turn.transcript for turn in ends)) <= MAX_ERROR_RATE
    assert all(turn.audio_window_start <= turn.audio_window_end <= seconds + 0.1 for turn in turns)
    assert all(turn.words for turn in turns if turn.event == "StartOfTurn")


def in_real_time(send: Any, audio: bytes, stop: threading.Event) -> None:
    """Send 80 ms of audio at a time."""
    for chunk in chunks(audio, 2560):
        send(chunk)
        if stop.wait(0.08):
            return


def test_flux_sync(server: LiveServer) -> None:
    samples = speech(16_000)
    with client(server).listen.v2.connect(**FLUX, eager_eot_threshold=0.4, eot_threshold=0.7) as socket:
        stop = threading.Event()

        def talk() -> None:
            in_real_time(socket.send_media, pcm(samples), stop)
            socket.send_close_stream()

        talker = threading.Thread(target=talk)
        talker.start()
        messages = list(socket)
        stop.set()
        talker.join()
    check_turns(messages, len(samples) / 16_000)
    events = [turn.event for turn in of(messages, "TurnInfo")]
    assert "EagerEndOfTurn" in events
    eager = events.index("EagerEndOfTurn")
    assert {turn.trigger for turn in of(messages, "TurnInfo")[eager:] if turn.event == "EndOfTurn"} == {"model"}


def test_flux_threshold_1_leaves_turns_to_client(server: LiveServer) -> None:
    """Deepgram recommends this to clients that have their own turn detection."""
    with client(server).listen.v2.connect(**FLUX, eot_threshold=1.0, eot_timeout_ms=30_000) as socket:
        for chunk in chunks(pcm(speech(16_000)), 2560):
            socket.send_media(chunk)
        socket.send_force_end_turn()
        socket.send_close_stream()
        messages = list(socket)
        assert socket._websocket.close_code == 1000
    (end,) = [turn for turn in of(messages, "TurnInfo") if turn.event == "EndOfTurn"]
    assert end.trigger == "manual"
    assert word_error_rate(TEXT, end.transcript) <= MAX_ERROR_RATE


async def test_flux_configure_and_force_end_turn(server: LiveServer) -> None:
    async with async_client(server).listen.v2.connect(**FLUX) as socket:
        messages = [message async for message in converse_flux(socket)]
    kinds = [message.type for message in messages]
    assert kinds[:2] == ["Connected", "ConfigureSuccess"]
    assert messages[1].thresholds.eot_threshold == 0.8
    forced = [message for message in of(messages, "TurnInfo") if message.event == "EndOfTurn"]
    assert [message.trigger for message in forced] == ["manual", "manual"]
    assert word_error_rate(clip("counting").text, forced[0].transcript) <= MAX_ERROR_RATE
    assert forced[1].transcript == ""


async def converse_flux(socket: Any) -> AsyncIterator[Any]:
    from deepgram.listen.v2.types import ListenV2Configure, ListenV2ConfigureThresholds

    await socket.send_configure(ListenV2Configure(thresholds=ListenV2ConfigureThresholds(eot_threshold=0.8)))
    await socket.send_media(clip("counting").pcm(16_000))
    await socket.send_force_end_turn()
    await socket.send_force_end_turn()
    ends = 0
    async with asyncio.timeout(30):
        async for message in socket:
            yield message
            ends += getattr(message, "event", "") == "EndOfTurn"
            if ends == 2:
                await socket.send_close_stream()

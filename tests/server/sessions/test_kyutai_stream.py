"""Kyutai's protocol over a real socket, its other routes, and the metrics of moshi-server."""

from __future__ import annotations

import re
import socket as tcp
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from support.audio_encoding import encode
from support.kyutai_wire import audio, closed_union, decode, message
from support.server import LiveServer
from support.speech import clip, word_error_rate
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.engine.scripted import scripted_words

PATH = "/api/asr-streaming"
FRAME = 1_920


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded") as server:
        yield server


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


def silence(frames: float) -> bytes:
    """Return a message with silence for the scripted engine."""
    return audio(np.zeros(int(frames * FRAME), np.float32))


def receive(socket: ClientConnection) -> dict[str, Any]:
    fields = decode(socket.recv(timeout=20))
    closed_union.validate_python(fields)
    return fields


def until(socket: ClientConnection, type: str) -> list[dict[str, Any]]:
    """Return the messages up to and including the next one of this type."""
    messages = [receive(socket)]
    while messages[-1]["type"] != type:
        messages.append(receive(socket))
    return messages


def of(messages: list[dict[str, Any]], type: str) -> list[dict[str, Any]]:
    return [fields for fields in messages if fields["type"] == type]


def test_speech_up_to_marker(embedded: LiveServer) -> None:
    speech = clip("counting")
    samples = speech.at(24_000)
    with connect(embedded.url(PATH)) as socket:
        for start in range(0, len(samples), FRAME):
            socket.send(audio(samples[start : start + FRAME]))
        socket.send(silence(13))
        socket.send(message(type="Marker", id=42))
        messages = until(socket, "Marker")
    words, end_words, steps = of(messages, "Word"), of(messages, "EndWord"), of(messages, "Step")
    assert messages[0] == {"type": "Ready"}
    assert messages[-1] == {"type": "Marker", "id": 42}
    assert word_error_rate(speech.text, " ".join(word["text"] for word in words)) <= 0.1
    starts, stops = [word["start_time"] for word in words], [word["stop_time"] for word in end_words]
    assert starts == sorted(starts)
    assert all(start <= stop <= len(samples) / 24_000 for start, stop in zip(starts, stops, strict=True))
    # The resampler holds back as much as its filter is long, and the last frame is incomplete.
    assert (len(samples) + 13 * FRAME) // FRAME - len(steps) in (0, 1)


def test_steps_and_words(scripted: LiveServer) -> None:
    with connect(scripted.url(PATH)) as socket:
        for _ in range(90):
            socket.send(silence(1))
        socket.send(message(type="Marker", id=-1))
        messages = until(socket, "Marker")
    assert [step["step_idx"] for step in of(messages, "Step")] == list(range(90))
    assert all(len(step["prs"]) == 4 for step in of(messages, "Step"))
    expected = scripted_words(90)
    assert [(word["text"], word["start_time"]) for word in of(messages, "Word")] == [
        (word.text, word.start) for word in expected
    ]
    assert [word["stop_time"] for word in of(messages, "EndWord")] == [word.end for word in expected]
    assert [fields["type"] for fields in messages[:2]] == ["Ready", "Step"]


def test_marker_independent_of_other_streams(scripted: LiveServer) -> None:
    """In moshi-server, other clients' frames count too, so that the marker returns before the words that precede it."""
    with connect(scripted.url(PATH), max_queue=None) as busy, connect(scripted.url(PATH)) as socket:
        for _ in range(200):
            busy.send(silence(1))
        socket.send(silence(10))
        socket.send(message(type="Marker", id=1))
        messages = until(socket, "Marker")
        assert [word["text"] for word in of(messages, "Word")] == ["word0", "word1"]
        assert len(of(messages, "Step")) == 10
        socket.send(message(type="Marker", id=1))
        assert receive(socket) == {"type": "Marker", "id": 1}


def test_stream_continues_after_marker(scripted: LiveServer) -> None:
    with connect(scripted.url(PATH)) as socket:
        socket.send(silence(20))
        socket.send(message(type="Marker", id=0))
        until(socket, "Marker")
        socket.send(silence(5))
        socket.send(message(type="Marker", id=0))
        assert len(of(until(socket, "Marker"), "Step")) == 5


def test_init_resets_stream(scripted: LiveServer) -> None:
    with connect(scripted.url(PATH)) as socket:
        socket.send(silence(30))
        socket.send(message(type="Init"))
        socket.send(silence(10))
        socket.send(message(type="Marker", id=0))
        until(socket, "Ready")
        until(socket, "Ready")
        messages = until(socket, "Marker")
    assert [step["step_idx"] for step in of(messages, "Step")] == list(range(10))
    assert [word["text"] for word in of(messages, "Word")] == ["word0", "word1"]


def test_ready_comes_first(embedded: LiveServer) -> None:
    with connect(embedded.url(PATH)) as socket:
        assert receive(socket) == {"type": "Ready"}, "before any audio is sent"


def test_full_server() -> None:
    with LiveServer(max_streams=1) as server, connect(server.url(PATH)) as first:
        receive(first)
        with connect(server.url(PATH)) as socket:
            assert receive(socket) == {"type": "Error", "message": "no free channels"}
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)
            assert socket.close_code == 1013
        first.send(silence(1))
        assert receive(first)["type"] == "Step"


def test_keys_in_header_or_query() -> None:
    with LiveServer(api_keys=("public_token",), host="127.0.0.1") as server:
        for url, key in [
            (server.url(PATH), None),
            (server.url(PATH), "wrong"),
            (server.url(PATH, auth_id="wrong"), None),
            (server.url(PATH, auth_id="public_token"), "wrong"),
        ]:
            with pytest.raises(InvalidStatus) as refused:
                connect(url, additional_headers={} if key is None else {"kyutai-api-key": key})
            assert refused.value.response.status_code == 401
        token, _ = server.service.keys.grant("public_token", 60)
        for key in ("public_token", token):
            with connect(server.url(PATH), additional_headers={"kyutai-api-key": key}) as socket:
                assert receive(socket) == {"type": "Ready"}
        with connect(server.url(PATH, auth_id="public_token", room=5)) as socket:
            assert receive(socket) == {"type": "Ready"}
        assert httpx.post(server.http(f"{PATH}?auth_id=public_token"), content=b"RIFF").status_code == 401
        answer = httpx.post(server.http(PATH), content=b"noise", headers={"kyutai-api-key": "public_token"})
        assert answer.status_code == 400


@pytest.mark.parametrize("bad", [b"\xc1", b"no map", message(type="Nonsense"), message(type="Audio", pcm="loud")])
def test_invalid_message(scripted: LiveServer, bad: bytes) -> None:
    with connect(scripted.url(PATH)) as socket:
        socket.send("text is ignored")
        socket.send(bad)
        messages = until(socket, "Error")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    assert messages[-1]["message"]
    assert socket.close_code == 1003


def test_opus_then_pcm(embedded: LiveServer) -> None:
    speech = clip("one_to_five")
    opus = encode(speech.at(48_000)[:, None], 48_000, "ogg", "libopus", live=True)
    with connect(embedded.url(PATH)) as socket:
        for start in range(0, len(opus), 700):
            socket.send(message(type="OggOpus", data=opus[start : start + 700]))
        socket.send(silence(13))
        socket.send(message(type="Marker", id=1))
        messages = until(socket, "Marker")
    words, steps = of(messages, "Word"), of(messages, "Step")
    assert word_error_rate(speech.text, " ".join(word["text"] for word in words)) <= 0.1
    assert abs(len(steps) - (len(speech.at(24_000)) / FRAME + 13)) <= 2
    assert steps[-1]["buffered_pcm"] < 2 * FRAME


def test_invalid_opus(scripted: LiveServer) -> None:
    with connect(scripted.url(PATH)) as socket:
        socket.send(message(type="OggOpus", data=b"this is not Opus at all" * 100))
        assert "Opus" in until(socket, "Error")[-1]["message"]
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    assert socket.close_code == 1007


def test_restart_closes_with_1012() -> None:
    with LiveServer() as server, connect(server.url(PATH)) as socket:
        socket.send(silence(10))
        until(socket, "Step")
        server.terminate()
        with pytest.raises(ConnectionClosed):
            while True:
                receive(socket)
        assert socket.close_code == 1012


def test_build_info(scripted: LiveServer) -> None:
    answer = httpx.get(scripted.http("/api/build_info"))
    assert answer.status_code == 200
    assert set(answer.json()) >= {"build_timestamp", "git_hash", "git_describe", "rustc_version", "cargo_target_triple"}
    assert all(isinstance(value, str) and value for value in answer.json().values())


def test_modules_info() -> None:
    with LiveServer(max_streams=3) as server, connect(server.url(PATH)) as socket:
        receive(socket)
        (module,) = httpx.get(server.http("/api/modules_info")).json()
    assert module == {
        "type": "batched_asr",
        "path": PATH,
        "lm": "scripted",
        "audio_tokenizer": "scripted",
        "used_slots": "1",
        "total_slots": "3",
    }


def test_moshi_metrics() -> None:
    with LiveServer(max_streams=1) as server:
        with connect(server.url(PATH)) as socket:
            socket.send(silence(50))
            socket.send(message(type="Marker", id=0))
            until(socket, "Marker")
            assert 'asr_open_channels{handler="all"} 1.0' in httpx.get(server.http("/metrics")).text
            with connect(server.url(PATH)) as refused:
                until(refused, "Error")
        wait_until(lambda: "asr_connection_num_steps_count 1.0" in httpx.get(server.http("/metrics")).text)
        text = httpx.get(server.http("/metrics")).text
    assert 'asr_open_channels{handler="all"} 0.0' in text
    assert re.search(r'^# TYPE asr_connect counter\nasr_connect\{handler="all"\} 2$', text, re.MULTILINE)
    assert 'asr_connection_num_steps_bucket{le="25.0"} 0.0' in text
    assert 'asr_connection_num_steps_bucket{le="125.0"} 1.0' in text
    steps = re.search(r"^asr_model_step_duration_count (\S+)$", text, re.MULTILINE)
    assert steps is not None
    assert float(steps[1]) >= 50
    assert set(re.findall(r'asr_model_step_duration_bucket\{le="([^"]+)"', text)) == {
        *("0.02", "0.03", "0.04", "0.05", "0.06", "0.07", "0.08"),
        "+Inf",
    }


def test_slow_reader_loses_only_steps() -> None:
    """The socket buffers are small; the numbers of the Steps show which ones are missing."""
    frames = 4_000
    with LiveServer(outbox_messages=2_400, step_ms=0) as server:
        server.runner.servers[0].sockets[0].setsockopt(tcp.SOL_SOCKET, tcp.SO_SNDBUF, 4096)  # sockets inherit it
        raw = tcp.socket()
        raw.setsockopt(tcp.SOL_SOCKET, tcp.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        with connect(server.url(PATH), sock=raw, max_queue=1) as socket:
            for _ in range(frames // 100):
                socket.send(silence(100))
            socket.send(message(type="Marker", id=0))
            time.sleep(1)
            messages = until(socket, "Marker")
    words, steps = of(messages, "Word"), [step["step_idx"] for step in of(messages, "Step")]
    assert [word["text"] for word in words] == [word.text for word in scripted_words(frames)]
    assert len(of(messages, "EndWord")) == len(words)
    assert len(steps) < frames
    assert steps == sorted(set(steps))

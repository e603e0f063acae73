"""Uploaded files: errors in each vendor's form, memory use of long files, and live streams beside them."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import av
import httpx2 as httpx
import numpy as np
import psutil
import pytest
from support.server import LiveServer
from support.waiting import wait_until
from support.wav import wav
from websockets.sync.client import connect

from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.scripted import scripted_words

KEY = "secret"
AUTH = {"authorization": f"Bearer {KEY}"}


def silence(seconds: float, channels: int, container: str) -> bytes:
    """Return a file of 16-bit silence, written by libav."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream({"wav": "pcm_s16le", "flac": "flac"}[container], rate=24_000, layout=layout)
        samples = np.zeros((1, 4_000 * channels), np.int16)
        for _ in range(round(seconds * 6)):
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.sample_rate = 24_000
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(max_streams=2, step_ms=0, api_keys=(KEY,), host="127.0.0.1", upload_bytes=20 << 20) as server:
        yield server


def small(seconds: float = 4.0) -> bytes:
    return b"".join(wav(seconds))


def form(data: bytes, **fields: str) -> dict[str, Any]:
    return {"files": {"file": ("talk.wav", data)}, "data": fields, "headers": AUTH, "timeout": 30}


OPENAI = "/v1/audio/transcriptions"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"files": {"file": ("a.wav", b"nonsense" * 20)}}, 400, "bad_audio"),
        ({"files": {"file": ("a.wav", b"")}}, 400, "bad_audio"),
        ({"files": {"other": ("a.wav", small())}}, 400, "bad_parameter"),
        ({"data": {"file": "text"}}, 400, "bad_parameter"),
        ({"content": b"no form"}, 400, "bad_parameter"),
        ({"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, None),
        ({"files": {"file": ("a.wav", small())}, "data": {"response_format": "diarized_json"}}, 400, "bad_parameter"),
        ({"files": {"file": ("a.wav", bytes(21 << 20))}}, 413, "too_big"),
    ],
    ids=["nonsense", "empty", "no_file", "file_is_text", "no_form", "broken_form", "format", "too_big"],
)
def test_openai_errors(server: LiveServer, request_: dict[str, Any], status: int, code: str | None) -> None:
    headers = {**AUTH, **request_.pop("headers", {})}
    answer = httpx.post(server.http(OPENAI), headers=headers, timeout=30, **request_)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert code in (None, error["code"])
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("query", "content", "status"),
    [
        ("", b"nonsense" * 20, 400),
        ("?encoding=speex", small(), 400),
        ("?encoding=linear16", small(), 400),
        ("?channels=9", small(), 400),
        ("", b"".join(wav(3000.0)), 413),
    ],
    ids=["nonsense", "codec", "no_rate", "channels", "too_big"],
)
def test_deepgram_errors(server: LiveServer, query: str, content: bytes, status: int) -> None:
    answer = httpx.post(server.http("/v1/listen" + query), content=content, headers=AUTH, timeout=30)
    assert answer.status_code == status, answer.text
    assert answer.json()["request_id"] == answer.headers["dg-request-id"]
    assert answer.json()["err_msg"]


def test_deepgram_url_is_not_fetched(server: LiveServer) -> None:
    answer = httpx.post(server.http("/v1/listen"), json={"url": "http://127.0.0.1/x.wav"}, headers=AUTH)
    assert answer.status_code == 400
    assert "audio URLs are not supported" in answer.json()["err_msg"]


@pytest.mark.parametrize("path", [OPENAI, "/v1/listen", "/v1/auth/grant", "/v1/realtime/client_secrets"])
def test_api_key_required(server: LiveServer, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert httpx.post(server.http(path), headers=headers, content=small()).status_code == 401


def test_openai_translations_unsupported(server: LiveServer) -> None:
    answer = httpx.post(server.http("/v1/audio/translations"), **form(small()))
    assert answer.status_code == 400
    assert "does not translate" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/realtime/sessions", "/v1/realtime/transcription_sessions"])
def test_openai_beta_session(server: LiveServer, path: str) -> None:
    answer = httpx.post(server.http(path), json={"input_audio_format": "g711_ulaw"}, headers=AUTH).json()
    assert answer["audio"]["input"]["format"] == {"type": "audio/pcmu", "rate": 8000}
    secret = {"authorization": f"Bearer {answer['client_secret']['value']}"}
    assert httpx.get(server.http("/v1/models"), headers=secret).status_code == 200
    assert httpx.get(server.http("/v1/models/scripted"), headers=secret).json()["turns_from"] == "script"
    assert httpx.get(server.http("/v1/models/other"), headers=secret).status_code == 404


def test_full_server_sets_retry_after(server: LiveServer) -> None:
    with connect(server.url(token=KEY)), connect(server.url(token=KEY)):
        for path, request in ((OPENAI, form(small())), ("/v1/listen", {"content": small(), "headers": AUTH})):
            answer = httpx.post(server.http(path), **request)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0


def test_words_complete_and_slot_freed(server: LiveServer) -> None:
    for _ in range(3):
        answer = httpx.post(server.http(OPENAI), **form(small(8.0)))
        assert answer.json()["text"] == " ".join(word.text for word in scripted_words(100))
    raw = httpx.post(
        server.http("/v1/listen?encoding=mulaw&sample_rate=8000"), content=bytes(64_000), headers=AUTH, timeout=30
    )
    assert raw.json()["results"]["channels"][0]["alternatives"][0]["transcript"].split()[0] == "word0"
    assert server.service.engine.active == 0


@pytest.mark.parametrize("channels", [1, 2])
def test_deepgram_utterances(server: LiveServer, channels: int) -> None:
    query = f"encoding=linear16&sample_rate=24000&channels={channels}&multichannel=true&utterances=True"
    audio = bytes(2 * 24_000 * 20 * channels)
    answer = httpx.post(server.http(f"/v1/listen?{query}"), content=audio, headers=AUTH, timeout=30)
    results = answer.json()["results"]
    assert len(results["channels"]) == channels
    for number, channel in enumerate(results["channels"]):
        utterances = [utterance for utterance in results["utterances"] if utterance["channel"] == number]
        assert len(utterances) >= 3
        assert [word for utterance in utterances for word in utterance["words"]] == channel["alternatives"][0]["words"]
        for utterance in utterances:
            assert utterance["start"] == utterance["words"][0]["start"]
            assert utterance["end"] == utterance["words"][-1]["end"]
            assert utterance["transcript"] == " ".join(word["punctuated_word"] for word in utterance["words"])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_deepgram_detects_channels(server: LiveServer, channels: int, container: str) -> None:
    audio = silence(8.0, channels, container)
    query = "multichannel=true&utterances=true"
    answer = httpx.post(server.http(f"/v1/listen?{query}"), content=audio, headers=AUTH, timeout=30).json()
    assert answer["metadata"]["channels"] == len(answer["results"]["channels"]) == channels
    assert {each["channel"] for each in answer["results"]["utterances"]} == set(range(channels))
    for channel in answer["results"]["channels"]:
        assert channel["alternatives"][0]["transcript"].split()[0] == "word0"
    mixed = httpx.post(server.http("/v1/listen"), content=audio, headers=AUTH, timeout=30).json()
    assert len(mixed["results"]["channels"]) == 1
    assert server.service.engine.active == 0


def test_deepgram_rejects_more_than_two_channels(server: LiveServer) -> None:
    audio = silence(1.0, 6, "flac")
    answer = httpx.post(server.http("/v1/listen?multichannel=true"), content=audio, headers=AUTH, timeout=30)
    assert answer.status_code == 400
    assert "use channels=1" in answer.json()["err_msg"]


def test_disconnect_frees_slot(server: LiveServer) -> None:
    def forever() -> Iterator[bytes]:
        yield from wav(1000.0)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        httpx.post(server.http("/v1/listen"), content=forever(), headers=AUTH, timeout=30)
    wait_until(lambda: server.service.engine.active == 0)


def test_token_for_upload(server: LiveServer) -> None:
    grant = httpx.post(server.http("/v1/auth/grant"), json={"ttl_seconds": 60}, headers=AUTH).json()
    assert grant["expires_in"] == 60
    headers = {"authorization": f"Bearer {grant['access_token']}"}
    assert httpx.post(server.http("/v1/listen"), content=small(), headers=headers, timeout=30).status_code == 200
    assert httpx.post(server.http("/v1/auth/grant"), headers=headers).status_code == 401


def test_hour_of_audio_memory(server: LiveServer) -> None:
    """The decoded audio would take 345 MB."""
    process, peak, done = psutil.Process(), 0, threading.Event()
    httpx.post(server.http("/v1/listen"), content=wav(60.0, 4_000), headers=AUTH, timeout=60)  # warm-up
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = httpx.post(server.http("/v1/listen"), content=wav(3600.0, 4_000), headers=AUTH, timeout=60)
    done.set()
    watcher.join()
    assert answer.json()["metadata"]["duration"] == pytest.approx(3600, abs=0.1)
    assert len(answer.json()["results"]["channels"][0]["alternatives"][0]["words"]) == len(scripted_words(45_000))
    assert peak - before < 60 << 20


def test_live_stream_beside_file() -> None:
    """The real scheduler processes the file in the capacity that the live stream leaves."""
    with LiveServer(model="random:tiny", device="cpu", dtype="f32", max_streams=2) as server:
        uploaded: list[float] = []
        scheduled_both = False
        assert isinstance(server.service.engine, BatchedEngine)

        def upload() -> None:
            answer = httpx.post(server.http("/v1/listen"), content=wav(120.0, 8_000), timeout=60)
            uploaded.append(answer.json()["metadata"]["duration"])

        uploader = threading.Thread(target=upload)
        with connect(server.url(events="lag")) as socket:
            uploader.start()
            for _ in range(60):
                socket.send(bytes(3840))
                time.sleep(0.08)
                kinds = {stream.slot.live for stream in list(server.service.engine._streams)}
                scheduled_both = scheduled_both or kinds == {True, False}
            socket.send("EOS")
            messages = [json.loads(message) for message in socket]
        uploader.join()
    assert scheduled_both
    assert uploaded == [pytest.approx(120.0, abs=0.1)]
    lags = [message["behind"] for message in messages if message["type"] == "lag"]
    assert len(lags) >= 3
    assert max(lags) < 0.5

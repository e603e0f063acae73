"""Quotas of API keys: sliding windows, refusals in each protocol's form, and streams that reach a limit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import httpx2 as httpx
import msgspec
import pytest
from support.server import LiveServer
from support.waiting import wait_until
from support.wav import wav
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.config import KeySettings
from tympan.engine.scripted import scripted_words
from tympan.errors import QuotaError
from tympan.server.access.quota import BUCKETS, DAY_SECONDS, Account, SlidingWindow

SMALL = b"".join(wav(4.0))


class Meter:
    """A session that has received `heard_seconds` of audio."""

    heard_seconds = 0.0


def limited(**limits: Any) -> Account:
    return Account(KeySettings(**limits))


@pytest.mark.parametrize("seed", range(20))
def test_sliding_window_total(seed: int) -> None:
    random = Random(seed)
    window, now, added = SlidingWindow(60.0), 1000.0, []
    for _ in range(100):
        now += random.choice([0.0, random.uniform(0, 1), random.uniform(0, 40)])
        amount = random.randint(1, 9)
        window.add(amount, now)
        added.append((now, amount))
        least = sum(amount for at, amount in added if at > now - 60.0)
        most = sum(amount for at, amount in added if at > now - 61.0 - 1e-6)
        assert least <= window.total(now) <= most
        assert len(window._buckets) <= BUCKETS + 1
    seconds = window.seconds_until_below(5, now)
    assert window.total(now + seconds) < 5


def test_streams_reserved_all_or_none() -> None:
    account = limited(key_streams=3)
    first, second = account.open(Meter(), 2, 0.0), account.open(Meter(), 1, 0.0)
    second.end(1.0)
    second.end(2.0)
    with pytest.raises(QuotaError, match="the limit of 3 concurrent streams is reached"):
        account.open(Meter(), 2, 2.0)
    assert account.streams == 2
    first.end(3.0)
    account.open(Meter(), 2, 3.0)


def test_openings_per_minute_limit() -> None:
    account = limited(key_opens_per_minute=2)
    for now in (0.0, 50.0):
        account.open(Meter(), 1, now).end(now)
    with pytest.raises(QuotaError, match="the limit of 2 new streams and files per minute is reached") as caught:
        account.open(Meter(), 1, 55.0)
    assert caught.value.retry_after_seconds == 6
    account.open(Meter(), 1, 61.0)


def test_minutes_shared_by_streams_for_a_day() -> None:
    account = limited(key_minutes_per_day=1.0)
    one, other = Meter(), Meter()
    usages = [account.open(one, 1, 0.0), account.open(other, 1, 0.0)]
    one.heard_seconds = 59.0
    assert usages[0].spent(1.0) is None
    other.heard_seconds = 1.0
    assert usages[1].spent(2.0) is not None
    assert usages[0].spent(2.0) is not None, "the key's streams share its minutes"
    with pytest.raises(QuotaError, match="the limit of 1 minutes of audio in 24 hours is reached") as caught:
        account.open(Meter(), 1, 3.0)
    later = 3.0 + caught.value.retry_after_seconds
    assert DAY_SECONDS <= later <= DAY_SECONDS * (1 + 1 / BUCKETS) + 1
    account.open(Meter(), 1, later)
    assert account.audio_seconds == 60.0


def test_lowered_limit_applies_at_once() -> None:
    account = limited()
    talk = Meter()
    usage = account.open(talk, 1, 0.0)
    talk.heard_seconds = 60.0
    assert usage.spent(1.0) is None
    account.limits = KeySettings(key_minutes_per_day=1.0)
    assert usage.spent(2.0) is not None


# --- a server ------------------------------------------------------------------------------------------------------

KEYS = ("acme name=acme streams=1", "few opens_per_minute=1", "spent minutes_per_day=0.05", "small", "free")


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    limits = {"key_upload_bytes_per_minute": 2 * len(SMALL)}
    keys = {"api_keys": KEYS, "metrics_keys": ["scraper"]}
    with LiveServer(max_streams=8, step_ms=0, host="127.0.0.1", **keys, **limits) as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def end(socket: ClientConnection) -> tuple[list[Any], int | None]:
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(socket.recv(timeout=10))
    return messages, socket.close_code


@pytest.mark.parametrize(
    ("path", "key", "code"),
    [
        ("/v1/stream", {"authorization": "Bearer acme"}, lambda body: body["error"]["code"] == "quota"),
        ("/v1/realtime", {"authorization": "Bearer acme"}, lambda body: body["error"]["code"] == "rate_limit_exceeded"),
        ("/v1/listen", {"authorization": "Token acme"}, lambda body: body["err_code"] == "TOO_MANY_REQUESTS"),
        ("/v2/listen", {"authorization": "Token acme"}, lambda body: body["err_code"] == "TOO_MANY_REQUESTS"),
        ("/api/speech/asr", {"x-api-key": "acme"}, lambda body: "concurrent streams" in body["error"]),
    ],
    ids=["native", "openai", "deepgram", "flux", "gradium"],
)
def test_excess_stream_refused_with_429(
    server: LiveServer, path: str, key: dict[str, str], code: Callable[[Any], bool]
) -> None:
    with connect(server.url(path), additional_headers=key):
        with pytest.raises(InvalidStatus) as caught:
            connect(server.url(path), additional_headers=key)
        response = caught.value.response
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0
        assert code(json.loads(response.body or b""))
        assert "the limit of 1 concurrent streams is reached" in (response.body or b"").decode()
        with connect(server.url(token="free")) as other:
            other.ping().wait(10)
    wait_until(lambda: server.service.keys.check("acme").streams == 0)


def test_kyutai_refuses_after_handshake(server: LiveServer) -> None:
    url = server.url("/api/asr-streaming", auth_id="acme")
    with connect(url), connect(url) as socket:
        messages, code = end(socket)
        assert [msgspec.msgpack.decode(each) for each in messages] == [
            {"type": "Error", "message": "the limit of 1 concurrent streams is reached"}
        ]
        assert code == 1008
    wait_until(lambda: server.service.keys.check("acme").streams == 0)


def test_channels_count_as_streams(server: LiveServer) -> None:
    with pytest.raises(InvalidStatus):
        connect(server.url(token="acme", channels=2))
    assert server.service.engine.active == 0
    assert server.service.keys.check("acme").streams == 0


def test_limits_apply_to_tokens_and_files(server: LiveServer) -> None:
    grant = httpx.post(server.http("/v1/auth/grant"), headers=bearer("acme"), json={}).json()
    with connect(server.url(token=grant["access_token"])):
        for path, request in (
            ("/v1/listen", {"content": SMALL}),
            ("/v1/audio/transcriptions", {"files": {"file": ("a.wav", SMALL)}}),
        ):
            answer = httpx.post(server.http(path), headers=bearer("acme"), **request)
            assert answer.status_code == 429
            assert "retry-after" in answer.headers
        answer = httpx.post(server.http("/api/asr-streaming"), headers={"kyutai-api-key": "acme"}, content=SMALL)
        assert answer.status_code == 429
    wait_until(lambda: server.service.keys.check("acme").streams == 0)


def test_openings_limit_over_websocket(server: LiveServer) -> None:
    with connect(server.url(token="few")) as socket:
        socket.send("EOS")
        assert end(socket)[1] == 1000
    with pytest.raises(InvalidStatus) as caught:
        connect(server.url(token="few"))
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 61


def test_upload_bytes_limit(server: LiveServer) -> None:
    post = lambda: httpx.post(server.http("/v1/listen"), headers=bearer("small"), content=SMALL)  # noqa: E731
    assert [post().status_code for _ in range(3)] == [200, 200, 429]
    grant = httpx.post(server.http("/v1/auth/grant"), headers=bearer("small"), json={})
    assert grant.status_code == 200, "a token request is no upload"
    with connect(server.url(token="small")) as socket:
        socket.send(SMALL)  # live audio counts as minutes, not as bytes
        socket.send("EOS")
        assert end(socket)[1] == 1000


def test_minutes_limit_ends_stream_with_its_words(server: LiveServer) -> None:
    with connect(server.url(token="spent", events="word")) as socket:
        for _ in range(50):
            socket.send(bytes(3840))
        messages, code = end(socket)
    events = [json.loads(message) for message in messages]
    assert [each["text"] for each in events if each["type"] == "word"] == [word.text for word in scripted_words(50)]
    assert [each["type"] for each in events[-2:]] == ["complete", "error"]
    assert (events[-2]["audio_seconds"], events[-1]["code"], code) == (4.0, "quota", 1008)
    with pytest.raises(InvalidStatus) as caught:
        connect(server.url(token="spent"))
    assert int(caught.value.response.headers["retry-after"]) > 80_000
    answer = httpx.post(server.http("/v1/listen"), headers=bearer("spent"), content=SMALL)
    assert answer.status_code == 429


def test_reset_does_not_reset_minutes() -> None:
    """Kyutai's `Init` resets the stream's time, but not the usage."""
    with LiveServer(step_ms=0, key_minutes_per_day=0.05) as server:
        audio = msgspec.msgpack.encode({"type": "Audio", "pcm": [0.0] * 24_000})
        init = msgspec.msgpack.encode({"type": "Init"})
        with connect(server.url("/api/asr-streaming")) as socket:
            for _ in range(4):
                socket.send(audio)
                socket.send(init)
            messages, code = end(socket)
    assert msgspec.msgpack.decode(messages[-1])["type"] == "Error"
    assert code == 1008


def test_minutes_limit_ends_file_with_429() -> None:
    with LiveServer(step_ms=20, key_minutes_per_day=0.05) as server:
        answer = httpx.post(server.http("/v1/listen"), content=b"".join(wav(120.0)), timeout=60)
        assert answer.status_code == 429
        assert "minutes" in answer.json()["err_msg"]
        assert server.service.engine.active == 0


def test_metrics_of_named_keys_only(server: LiveServer) -> None:
    with connect(server.url(token="acme")) as socket:
        socket.send(bytes(3840 * 25))
        text = httpx.get(server.http("/metrics"), headers=bearer("scraper")).text
        assert 'tympan_key_streams{key="acme"} 1.0' in text
        socket.send("EOS")
        end(socket)
    text = httpx.get(server.http("/metrics"), headers=bearer("scraper")).text
    assert 'tympan_key_streams{key="acme"} 0.0' in text
    assert 'tympan_key_audio_seconds_total{key="acme"}' in text
    assert 'tympan_refused_total{reason="quota"}' in text
    assert text.count("tympan_key_streams{") == 1
    assert "free" not in text
    assert server.service.keys.check("free").id not in text


def test_files_use_half_of_the_slots() -> None:
    with LiveServer(max_streams=2, step_ms=0) as server:

        def forever() -> Iterator[bytes]:
            yield SMALL
            wait_until(lambda: bool(answers))

        answers: list[int] = []
        first = threading.Thread(target=lambda: httpx.post(server.http("/v1/listen"), content=forever(), timeout=60))
        first.start()
        wait_until(lambda: server.service.engine.active == 1)
        second = httpx.post(server.http("/v1/listen"), content=SMALL)
        with connect(server.url()) as socket:
            socket.send("EOS")
            end(socket)
            assert socket.close_code == 1000
        answers.append(second.status_code)
        first.join()
        assert answers == [429]
        assert "upload capacity is in use (1 of 1 streams)" in second.json()["err_msg"]
        assert httpx.post(server.http("/v1/listen"), content=SMALL).status_code == 200

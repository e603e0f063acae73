"""Keys that are removed while their streams and their tokens are in use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import httpx2 as httpx
import pytest
from support.server import LiveServer
from support.waiting import wait_until
from support.wav import wav
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tympan.config import KeySettings
from tympan.engine.scripted import scripted_words
from tympan.errors import AccessError
from tympan.server import service
from tympan.server.access.keys import KeyFile
from tympan.server.app import PROTOCOLS

FRAMES = 25


class KeyStore:
    """A key file, and the server that reads it."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.write("kept", "gone streams=1")
        self.server = LiveServer(api_keys_file=str(path), host="127.0.0.1", **settings)

    def write(self, *keys: str) -> None:
        """Replace the file as a whole."""
        new = self.path.with_suffix(".new")
        new.write_text("\n".join(keys))
        new.replace(self.path)

    def revoke(self) -> None:
        """Remove the key `gone`, and wait until the server refuses it."""
        self.write("kept")
        wait_until(lambda: httpx.get(self.server.http("/v1/models"), headers=bearer("gone")).status_code == 401)


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the key file ten times a second in place of once."""
    monkeypatch.setattr(service, "CHECK_EVERY_SECONDS", 0.1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path / "keys")
    with store.server:
        yield store


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def token_of(server: LiveServer, key: str) -> str:
    token: str = httpx.post(server.http("/v1/auth/grant"), headers=bearer(key), json={}).json()["access_token"]
    return token


def read_to_end(socket: ClientConnection) -> list[Any]:
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(socket.recv(timeout=10))
    return messages


@pytest.mark.parametrize("kind", ["key", "token"])
def test_open_stream_gets_its_last_words(store: KeyStore, kind: str) -> None:
    credential = "gone" if kind == "key" else token_of(store.server, "gone")
    with (
        connect(store.server.url(token=credential, events="word,ready")) as socket,
        connect(store.server.url(token="kept")) as other,
    ):
        socket.send(bytes(3840 * FRAMES))
        wait_until(lambda: store.server.service.keys.check("gone").streams == 1)
        store.revoke()
        events = [json.loads(message) for message in read_to_end(socket)]
        assert [each["text"] for each in events if each["type"] == "word"] == [
            word.text for word in scripted_words(FRAMES)
        ]
        assert [each["type"] for each in events[-2:]] == ["complete", "error"]
        assert events[-1]["code"] == "unauthorized"
        assert "has been removed" in events[-1]["message"]
        assert socket.close_code == 1008
        other.send("EOS")
        read_to_end(other)
        assert other.close_code == 1000
    assert store.server.service.engine.active == 0


def test_every_protocol_closes_with_1008(store: KeyStore) -> None:
    store.write("kept", "gone")  # without its limit of one stream
    wait_until(lambda: store.server.service.keys.check("gone").limits.key_streams is None)
    with ExitStack() as stack:
        sockets: dict[str, ClientConnection] = {}
        for path in PROTOCOLS:
            scheme = "Token" if "listen" in path else "Bearer"
            headers = {"authorization": f"{scheme} gone", "x-api-key": "gone", "kyutai-api-key": "gone"}
            query = {"encoding": "linear16", "sample_rate": 24000} if "listen" in path else {}
            url = store.server.url(path, **query)
            sockets[path] = stack.enter_context(connect(url, additional_headers=headers))
        sockets["/api/speech/asr"].send('{"type": "setup", "input_format": "pcm"}')
        wait_until(lambda: store.server.service.keys.check("gone").streams == len(PROTOCOLS))
        store.revoke()
        for socket in sockets.values():
            read_to_end(socket)
        assert {path: socket.close_code for path, socket in sockets.items()} == dict.fromkeys(PROTOCOLS, 1008)


def test_tokens_are_void_without_their_key(store: KeyStore) -> None:
    token, kept = token_of(store.server, "gone"), token_of(store.server, "kept")
    with connect(store.server.url(token=token)), pytest.raises(InvalidStatus, match="429"):
        connect(store.server.url(token=token))
    store.revoke()
    with pytest.raises(InvalidStatus) as refused:
        connect(store.server.url(token=token))
    assert refused.value.response.status_code == 401
    assert "not valid here" in (refused.value.response.body or b"").decode()
    file = b"".join(wav(1.0))
    assert httpx.post(store.server.http("/v1/listen"), headers=bearer(token), content=file).status_code == 401
    assert httpx.post(store.server.http("/v1/listen"), headers=bearer(kept), content=file).status_code == 200
    store.write("kept", "gone")
    wait_until(lambda: httpx.get(store.server.http("/v1/models"), headers=bearer("gone")).status_code == 200)
    with connect(store.server.url(token=token)):
        pass  # the key is valid again, and so is its token


def test_lost_stream_ends_and_cannot_be_resumed(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys", resume_seconds=3600)
    with store.server:
        with connect(store.server.url(token="gone", events="ready", resume="yes")) as socket:
            resume = json.loads(socket.recv(timeout=10))["resume"]
            socket.socket.shutdown(SHUT_RDWR)
        store.revoke()
        wait_until(lambda: store.server.service.engine.active == 0)
        with pytest.raises(InvalidStatus, match="401"):
            connect(store.server.url(token="gone", resume=resume, received=1))


def test_file_that_arrives_after_the_removal_is_refused(store: KeyStore) -> None:
    """The request has passed admission; its form arrives later."""

    def form() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        store.revoke()
        yield b"".join(wav(1.0)) + b"\r\n--x--\r\n"

    headers = {**bearer("gone"), "content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(store.server.http("/v1/audio/transcriptions"), headers=headers, content=form(), timeout=30)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_file_in_progress_ends_with_401(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys", step_ms=20)
    with store.server:

        def endless() -> Iterator[bytes]:
            yield b"".join(wav(600.0))[: 1 << 20]
            wait_until(lambda: store.server.service.engine.active == 1)
            store.revoke()
            yield bytes(1 << 20)

        answer = httpx.post(store.server.http("/v1/listen"), headers=bearer("gone"), content=endless(), timeout=30)
        assert answer.status_code == 401
        assert "has been removed" in answer.json()["err_msg"]
        assert store.server.service.engine.active == 0


def test_file_of_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old")
    os.utime(file, ns=(1, 1))
    keys = KeyFile(file, KeySettings())
    (before,) = keys.keys
    replacement = tmp_path / "new"
    replacement.write_text("new")
    os.utime(replacement, ns=(1, 1))
    replacement.replace(file)
    assert [keys.refresh() for _ in range(3)] == [False, True, False], "read once it has settled"
    assert keys.keys[0].hash != before.hash


def test_file_that_is_being_written_revokes_nothing(store: KeyStore) -> None:
    keys = store.server.service.keys
    account = keys.check("gone")
    for size in (0, 1, 4, 8):
        store.path.write_text("kept\ngone"[:size])
        keys.refresh()
    keys.check("gone")
    assert not account.revoked


def test_removed_account_opens_no_stream(store: KeyStore) -> None:
    account = store.server.service.keys.check("gone")
    store.revoke()
    assert account.revoked
    with pytest.raises(AccessError, match="has been removed"):
        account.open(Meter(), 1, 0.0)


class Meter:
    """A session without audio."""

    heard_seconds = 0.0

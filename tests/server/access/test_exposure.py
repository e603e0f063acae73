"""What a server shows to clients without the right key, to other web pages, and to other users of the machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from socket import create_connection
from typing import Any

import httpx2 as httpx
import pytest
from support.server import LiveServer, PlainServer
from support.wav import wav
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tympan.config import load_config
from tympan.errors import ConfigError
from tympan.server.access.keys import hash_of
from tympan.server.access.start_checks import read_token_secret, readable_secrets

FILE = b"".join(wav(1.0))
REBOUND = {"Host": "evil.example", "Origin": "http://evil.example"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def locked() -> Iterator[LiveServer]:
    """A server with an API key and a metrics key."""
    keys = {"api_keys": ["customer name=acme"], "metrics_keys": [hash_of("scraper")]}
    with LiveServer(host="127.0.0.1", **keys) as server:
        yield server


@pytest.fixture(scope="module")
def open_server() -> Iterator[LiveServer]:
    """A server without keys."""
    with LiveServer() as server:
        yield server


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_metrics_need_their_own_key(locked: LiveServer) -> None:
    url = locked.http("/metrics")
    token = httpx.post(locked.http("/v1/auth/grant"), headers=bearer("customer"), json={}).json()["access_token"]
    for headers in ({}, bearer("customer"), bearer(token), bearer(hash_of("scraper"))):
        answer = httpx.get(url, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "acme" not in answer.text
    assert 'tympan_key_streams{key="acme"}' in httpx.get(url, headers=bearer("scraper")).text
    assert httpx.get(locked.http("/v1/models"), headers=bearer("scraper")).status_code == 401, "and no other"


def test_metrics_without_metrics_keys(open_server: LiveServer) -> None:
    assert httpx.get(open_server.http("/metrics")).status_code == 200
    with LiveServer(host="127.0.0.1", api_keys=["customer"]) as server:
        answer = httpx.get(server.http("/metrics"), headers=bearer("customer"))
        assert answer.status_code == 401
        assert "set metrics_keys" in answer.json()["error"]["message"]


def test_schema_needs_an_api_key(locked: LiveServer, open_server: LiveServer) -> None:
    url = locked.http("/openapi.json")
    assert [httpx.get(url, headers=headers).status_code for headers in ({}, bearer("customer"))] == [401, 200]
    schema = httpx.get(open_server.http("/openapi.json")).json()
    assert {"/health", "/v1/listen", "/v1/audio/transcriptions"} <= schema["paths"].keys()
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert httpx.get(open_server.http(path)).status_code == 404
    for path in ("/", "/health", "/ready"):
        assert httpx.get(locked.http(path)).status_code == 200


# --- Other web pages -------------------------------------------------------------------------------------------------


def test_every_response_has_security_headers(locked: LiveServer, open_server: LiveServer) -> None:
    answers = [httpx.get(locked.http(path)) for path in ("/", "/static/app.js", "/health", "/metrics", "/nothing")]
    answers.append(httpx.post(locked.http("/v1/listen"), content=FILE))
    answers.append(httpx.get(open_server.http("/"), headers=REBOUND))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 401, 404, 401, 421]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answers[0].headers["content-security-policy"]
    for directive in ("frame-ancestors", "base-uri", "form-action"):
        assert f"{directive} 'none'" in policy


def open_stream(server: LiveServer, host: str, origin: str | None) -> int:
    """Return the status of an opening request to the server under a name."""
    peer = create_connection(("127.0.0.1", server.port))
    sent_by = None if origin is None else Origin(origin)
    try:
        with connect(f"ws://{host}:{server.port}/v1/stream", sock=peer, origin=sent_by):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code
    finally:
        peer.close()


@pytest.mark.parametrize("kind", [LiveServer, PlainServer])
def test_rebound_name_is_refused(kind: type[LiveServer]) -> None:
    with kind() as server:
        page = f"http://evil.example:{server.port}"
        assert open_stream(server, "evil.example", page) == 421
        assert open_stream(server, "evil.example", None) == 421
        assert open_stream(server, "localhost", f"http://localhost:{server.port}") == 101
        for path in ("/", "/metrics", "/v1/models", "/openapi.json", "/static/app.js"):
            answer = httpx.get(server.http(path), headers=REBOUND)
            assert answer.status_code == 421
            assert "allowed_hosts" in answer.json()["error"]["message"]
        for path in ("/v1/listen", "/v1/auth/grant"):
            assert httpx.post(server.http(path), headers=REBOUND, content=FILE).status_code == 421
        for path in ("/health", "/ready"):
            assert httpx.get(server.http(path), headers={"Host": "probe.internal"}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"allowed_hosts": ["asr.example"]}, 101), ({"allowed_hosts": ["*"]}, 101), ({"allowed_hosts": ["other"]}, 421)],
)
def test_allowed_host(settings: Mapping[str, Any], expected: int) -> None:
    with LiveServer(**settings) as server:
        assert open_stream(server, "asr.example", f"http://asr.example:{server.port}") == expected


def test_host_is_not_checked_with_keys(locked: LiveServer) -> None:
    assert httpx.get(locked.http("/"), headers={"Host": "asr.example"}).status_code == 200
    assert open_stream(locked, "asr.example", None) == 401


@pytest.mark.parametrize("kind", [LiveServer, PlainServer])
def test_origin_that_is_no_url(kind: type[LiveServer]) -> None:
    with kind() as server:
        assert open_stream(server, "127.0.0.1", "http://[") == 403
        answer = httpx.post(server.http("/v1/listen"), headers={"Origin": "http://["}, content=FILE)
        assert answer.status_code == 403


# --- Other users of the machine and the network ----------------------------------------------------------------------


def first_lines(*options: str, **variables: str) -> str:
    """Return what `tympan serve` logs until it serves."""
    command = [sys.executable, "-m", "tympan", "serve", "--model", "scripted", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables}) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " serves " in line:
                process.send_signal(signal.SIGTERM)
        return "".join(lines)


def test_open_server_on_the_network_is_logged() -> None:
    log = first_lines(TYMPAN_HOST="0.0.0.0", TYMPAN_API_KEYS="")
    assert re.search(r" on http://0\.0\.0\.0:\d+\n", log)
    assert log.count("WARNING") == 1
    assert "there are no API keys, so everyone who can reach 0.0.0.0 over the network can use this server" in log
    assert "`tympan key` creates a key" in log


def test_secrets_that_others_can_see_are_logged(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("key")
    file.chmod(0o644)
    hashed = ("--metrics-key", hash_of("scraper"))
    log = first_lines("--api-key", "visible", *hashed, "--api-keys-file", str(file), "--host", "127.0.0.1")
    assert re.search(r" on http://127\.0\.0\.1:\d+\n", log)
    assert log.count("WARNING") == 2
    assert "can see --api-key in `ps`: use --api-keys-file or TYMPAN_API_KEYS" in log
    assert f"every user of this machine has access to {file} (mode 0644): run chmod o= {file}" in log
    assert "visible" not in log


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)])
def test_permissions(tmp_path: Path, mode: int, count: int) -> None:
    file = tmp_path / "secret"
    file.write_text("s" * 32)
    file.chmod(mode)
    config = load_config(environment={}, overrides={"token_secret_file": str(file)})
    assert len(list(readable_secrets(config.server))) == count
    assert read_token_secret(config.server) == "s" * 32


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"token_secret": "x"}, r"the secret in token_secret has 1 bytes: expected at least 32; .*`tympan key`"),
        ({"token_secret": "é" * 15}, "has 30 bytes"),
        ({"token_secret_file": "{folder}/short"}, "the secret in .*short has 5 bytes"),
        ({"token_secret_file": "{folder}/empty"}, "the secret in .*empty has 0 bytes"),
        ({"token_secret_file": "{folder}/missing"}, "cannot read the token secret in .*missing"),
        ({"token_secret": "x" * 32, "token_secret_file": "{folder}/short"}, "both set"),
    ],
)
def test_weak_token_secret_is_refused(tmp_path: Path, settings: dict[str, str], expected: str) -> None:
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "empty").touch()
    overrides = {name: value.format(folder=tmp_path) for name, value in settings.items()}
    with pytest.raises(ConfigError, match=expected), LiveServer(host="127.0.0.1", api_keys=["key"], **overrides):
        pass


def test_token_secret_file_signs_tokens(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 32 + "\n")
    settings = {"host": "127.0.0.1", "api_keys": ["key"]}
    with (
        LiveServer(token_secret_file=str(tmp_path / "secret"), **settings) as one,
        LiveServer(token_secret="s" * 32, **settings) as other,
    ):
        token = httpx.post(one.http("/v1/auth/grant"), headers=bearer("key"), json={}).json()["access_token"]
        assert httpx.get(other.http("/v1/models"), headers=bearer(token)).status_code == 200

"""Requests as proxies, load balancers, browsers and people send them: upgrades, slashes, HEAD, prefixes."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx2 as httpx
import pytest
from support.raw_websocket import RawClient
from support.server import LiveServer, PlainServer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import tympan
from tympan.config import load_config
from tympan.errors import ConfigError
from tympan.server.app import PROTOCOLS
from tympan.server.routes.page import STATIC
from tympan.server.routes.paths import route_path

HTTP = httpx.Client(verify=False)


@pytest.fixture(scope="module", autouse=True)
def closed_client() -> Iterator[None]:
    yield
    HTTP.close()


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture(scope="module", params=[LiveServer, PlainServer], ids=["picows", "ASGI"])
def either(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """Both ways to serve the application."""
    with request.param(root_path="/stt") as server:
        yield server


def key() -> str:
    return f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}"


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: keep-alive, Upgrade", "Upgrade: websocket"],
        ["connection: Upgrade,keep-alive", "upgrade: WebSocket"],
        ["Connection: UPGRADE", "Connection: keep-alive", "Upgrade: websocket"],
        ["Connection: keep-alive", "Connection: Upgrade", "Upgrade: websocket"],
        ["Connection: upgrade, x-hop", "Upgrade: h2c, websocket"],
    ],
)
def test_upgrade_headers(server: LiveServer, lines: list[str]) -> None:
    with RawClient(server.port, lines=["Host: localhost", *lines, key(), "Sec-WebSocket-Version: 13"]) as client:
        assert client.status == 101


def test_upgrade_to_other_protocol_is_a_plain_request(server: LiveServer) -> None:
    """`curl --http2` offers h2c with every request."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert HTTP.get(server.http("/health"), headers=offer).status_code == 200


@pytest.mark.parametrize("version", ["8", "14"])
def test_other_websocket_version(server: LiveServer, version: str) -> None:
    with RawClient(server.port, Sec_WebSocket_Version=version) as client:
        assert (client.status, client.headers["sec-websocket-version"]) == (426, "13")
        assert "13" in json.loads(client.body)["error"]["message"]
    assert server.service.engine.active == 0


def test_plain_request_for_a_websocket(either: LiveServer) -> None:
    for path in PROTOCOLS:
        answer = HTTP.get(either.http(path))
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert answer.json()["error"]["code"] == "upgrade_required"
        assert f"{path} is a WebSocket" in answer.json()["error"]["message"]
        assert HTTP.head(either.http(path)).status_code == 426
    behind_proxy = HTTP.get(either.http("/v1/stream"), headers={"Sec-WebSocket-Key": "x"})
    assert "the proxy in front of this server" in behind_proxy.json()["error"]["message"]


def test_unknown_websocket_path_names_the_known_ones(server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(server.url("/v1/streams"))
    assert refused.value.response.status_code == 404
    assert "/v1/stream, " in json.loads(refused.value.response.body or b"")["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/stream/", "//v1/stream", "/v1//stream//", "/v1/%73tream"])
def test_slashes_of_a_websocket(either: LiveServer, path: str) -> None:
    with connect(either.url(path)) as socket:
        socket.send("EOS")
        assert json.loads(socket.recv(timeout=10)) == {"text": "", "final": True}


def test_slashes_of_http(either: LiveServer) -> None:
    for path in ("/health/", "//health", "/v1/models/", "//v1//models", "/ready//", "//static//app.js", "//"):
        assert HTTP.get(either.http(path)).status_code == 200, path
    assert HTTP.post(either.http("//v1/listen/"), content=b"x").status_code == 400
    assert HTTP.get(either.http("/v1/models/scripted/")).json()["id"] == "scripted"


def test_older_deepgram_path(server: LiveServer) -> None:
    with connect(server.url("/v1/listen/stream", encoding="linear16", sample_rate=16000)) as socket:
        socket.send('{"type": "CloseStream"}')
        assert json.loads(socket.recv(timeout=10))["type"] == "Metadata"


def test_head(either: LiveServer) -> None:
    for path in ("/", "/health", "/ready", "/v1/models", "/metrics", "/static/app.js", "/favicon.ico"):
        get, head = HTTP.get(either.http(path)), HTTP.head(either.http(path))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert HTTP.head(either.http("/nothing")).status_code == 404


def test_favicon(server: LiveServer) -> None:
    icon = HTTP.get(server.http("/favicon.ico"))
    assert (icon.status_code, icon.headers["content-type"].split(";")[0]) == (200, "image/svg+xml")
    assert icon.text.startswith("<svg")


# --- Prefixes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/", "", "/"),
        ("", "", "/"),
        ("//a///b/", "", "/a/b"),
        ("/stt/v1/stream", "/stt", "/v1/stream"),
        ("/stt", "/stt", "/"),
        ("/stt/", "/stt", "/"),
        ("//stt//health", "/stt", "/health"),
        ("/sttx/health", "/stt", "/sttx/health"),
        ("/a/b/health", "/a/b", "/health"),
    ],
)
def test_route_path(path: str, root_path: str, expected: str) -> None:
    assert route_path(path, root_path) == expected


async def test_proxy_keeps_or_removes_the_prefix(either: LiveServer) -> None:
    for prefix in ("/stt", ""):
        for path in ("/", "/health", "/v1/models", "/static/app.js", "/favicon.ico"):
            assert HTTP.get(either.http(prefix + path)).status_code == 200, prefix + path
        async with tympan.connect(either.url(prefix)) as stream:
            assert stream.ready.model == "scripted"
    assert HTTP.get(either.http("/other/health")).status_code == 404


def test_every_address_of_the_page_is_below_the_prefix(either: LiveServer) -> None:
    bare = HTTP.get(either.http("/stt?token=k"), follow_redirects=False)
    assert (bare.status_code, bare.headers["location"]) == (308, "/stt/?token=k")
    page = HTTP.get(either.http("/stt/"))
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) >= 4
    for address in addresses:
        full = urljoin("/stt/", address)
        assert full.startswith("/stt/static/")
        assert HTTP.get(either.http(full)).status_code == 200
    scripts = [script.relative_to(STATIC).as_posix() for script in STATIC.rglob("*.js")]
    assert {"app.js", "client/session.js"} <= set(scripts)
    for script in scripts:
        text = re.sub(r"//.*|/\*.*?\*/", "", HTTP.get(either.http(f"/stt/static/{script}")).text)
        assert not re.search(r"""["'`]/(v1|static|health|ready|api)\b""", text), f"an absolute address in {script}"


def test_schema_names_the_prefix(either: LiveServer) -> None:
    assert HTTP.get(either.http("/stt/openapi.json")).json()["servers"] == [{"url": "/stt"}]


@pytest.mark.parametrize("prefix", ["stt", "/stt/", "/", "/a?b", "https://host/stt"])
def test_invalid_prefix(prefix: str) -> None:
    with pytest.raises(ConfigError, match="invalid root_path"):
        load_config(environment={}, overrides={"root_path": prefix})

"""Web pages of other origins use the HTTP routes under `allowed_origins` (CORS), as a browser would enforce it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2 as httpx
import pytest
from support.server import LiveServer, PlainServer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

HTTP = httpx.Client(verify=False)
APP, OTHER, LOCAL = "https://app.example", "https://evil.example", "http://localhost:3000"
ROUTES = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/scripted"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/api/build_info"),
    ("GET", "/api/modules_info"),
    ("GET", "/v1/stream"),
    ("GET", "/nothing"),
    ("POST", "/v1/listen"),
    ("POST", "/v1/auth/grant"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/realtime/client_secrets"),
    ("POST", "/api/asr-streaming"),
]


@pytest.fixture(scope="module", autouse=True)
def closed_client() -> Iterator[None]:
    yield
    HTTP.close()


@pytest.fixture(scope="module", params=[LiveServer, PlainServer], ids=["picows", "ASGI"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with request.param(allowed_origins=[APP]) as server:
        yield server


def preflight(server: LiveServer, method: str, path: str, origin: str, **headers: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, **headers}
    return HTTP.request("OPTIONS", server.http(path), headers=asked)


def may_send(answer: httpx.Response, origin: str) -> bool:
    """Return what a browser decides after a preflight."""
    return answer.is_success and answer.headers.get("access-control-allow-origin") in (origin, "*")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_allowed_page(server: LiveServer, method: str, path: str) -> None:
    wanted = {"Access-Control-Request-Headers": "authorization,content-type"}
    answer = preflight(server, method, path, APP, **wanted)
    assert may_send(answer, APP)
    assert method in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    answer = HTTP.request(method, server.http(path), headers={"Origin": APP})
    assert answer.headers["access-control-allow-origin"] == APP, "pages can read errors, too"
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_other_page(server: LiveServer, method: str, path: str) -> None:
    answer = preflight(server, method, path, OTHER)
    assert answer.status_code == 403
    assert "allowed_origins" in answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers
    answer = HTTP.request(method, server.http(path), headers={"Origin": OTHER})
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


def test_error_bodies_and_headers_are_readable(server: LiveServer) -> None:
    answer = HTTP.post(server.http("/v1/listen"), headers={"Origin": APP}, content=b"no audio")
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == APP
    assert "dg-request-id" in answer.headers["access-control-expose-headers"]


def test_without_origin(server: LiveServer) -> None:
    answer = HTTP.get(server.http("/health"))
    assert "access-control-allow-origin" not in answer.headers
    assert HTTP.request("OPTIONS", server.http("/health")).status_code == 405


def test_private_network(server: LiveServer) -> None:
    asked = {"Access-Control-Request-Private-Network": "true"}
    assert preflight(server, "GET", "/health", APP, **asked).headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    ("settings", "origin", "allowed"),
    [
        ({}, OTHER, False),
        ({}, LOCAL, False),
        ({"allowed_origins": ["localhost"]}, LOCAL, True),
        ({"allowed_origins": ["localhost"]}, "http://127.0.0.1:5173", True),
        ({"allowed_origins": ["localhost"]}, OTHER, False),
        ({"allowed_origins": ["*"]}, OTHER, True),
        ({"api_keys": ["key"], "host": "127.0.0.1"}, OTHER, True),
        ({"api_keys": ["key"], "host": "127.0.0.1", "allowed_origins": [APP]}, OTHER, False),
    ],
)
def test_same_rule_for_websockets_and_http(settings: Mapping[str, Any], origin: str, allowed: bool) -> None:
    with LiveServer(**settings) as server:
        keys = {"Authorization": "Bearer key"}
        assert may_send(preflight(server, "POST", "/v1/listen", origin), origin) == allowed
        answer = HTTP.get(server.http("/health"), headers={"Origin": origin})
        assert ("access-control-allow-origin" in answer.headers) == allowed
        answer = HTTP.post(server.http("/v1/listen"), headers={"Origin": origin, **keys}, content=b"x")
        assert (answer.status_code == 403) != allowed
        if allowed:
            with connect(server.url(), origin=Origin(origin), additional_headers=keys):
                return
        with pytest.raises(InvalidStatus, match="403"):
            connect(server.url(), origin=Origin(origin), additional_headers=keys)


def test_refusal_names_the_option() -> None:
    with LiveServer() as server:
        message = preflight(server, "GET", "/health", LOCAL).json()["error"]["message"]
    assert "--allowed-origin localhost" in message

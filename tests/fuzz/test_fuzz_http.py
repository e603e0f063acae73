"""Requests from the OpenAPI schema, by Schemathesis, and requests outside the schema; no response may be a 500."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx2 as httpx
import pytest
import schemathesis
from fuzz_conversation import ErrorLog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.server import LiveServer

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(240)]

EXAMPLES = 150
MODERATE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
BODIES = (
    st.binary(max_size=300)
    | st.sampled_from((b"{}", b"[", b'{"session":' + b"[" * 900 + b"]" * 900 + b"}", b'{"x":' * 9999, b'{"a":"\xff"}'))
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("session", "audio", "input", "format", "type", "rate", "expires_after", "seconds",
                             "ttl_seconds", "turn_detection", "include", "transcription", "model")),
            inner, max_size=4,
        ),
        max_leaves=12,
    ).map(lambda value: httpx.Request("POST", "http://x", json=value).content)
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(step_ms=0) as server:
        yield server


@pytest.fixture(autouse=True)
def no_logged_errors() -> Iterator[None]:
    handler = ErrorLog()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    assert not handler.records, [record.getMessage() for record in handler.records]


def operations() -> list[tuple[str, str]]:
    """Return every method and path of the API."""
    with LiveServer() as server:
        described = httpx.get(server.http("/openapi.json")).json()
    return [(method.upper(), path) for path, item in described["paths"].items() for method in item]


@pytest.mark.parametrize(("method", "path"), operations())
def test_requests_from_schema(server: LiveServer, method: str, path: str) -> None:
    """Missing and invalid parameters, bodies of every kind, unsupported methods."""
    schema = schemathesis.openapi.from_url(server.http("/openapi.json"))

    @MODERATE
    @given(case=schema[path][method].as_strategy())
    def call(case: schemathesis.Case) -> None:
        response = case.call(timeout=10)
        assert response.status_code < 500, response.text
        assert "Traceback" not in response.text

    call()


POSTS = [
    "/v1/listen",
    "/v1/auth/grant",
    "/v1/audio/transcriptions",
    "/v1/realtime/client_secrets",
    "/v1/realtime/sessions",
    "/api/asr-streaming",
]


@pytest.mark.parametrize("path", POSTS)
def test_bodies_outside_schema(server: LiveServer, path: str) -> None:
    with httpx.Client(base_url=server.http(""), timeout=10) as client:

        @MODERATE
        @given(
            body=BODIES,
            kind=st.sampled_from(("application/json", "audio/wav", "multipart/form-data; boundary=x", "", "é")),
            query=st.dictionaries(st.sampled_from(("encoding", "sample_rate", "channels", "model", "utterances")),
                                  st.text(max_size=6) | st.sampled_from(("linear16", "16000", "opus", "9" * 50))),
            key=st.sampled_from((b"", b"Bearer \xff\xfe", b"Token a.b.c", b"Bearer ek_" + b"a" * 500, b"\x01")),
        )  # fmt: skip
        def call(body: bytes, kind: str, query: dict[str, str], key: bytes) -> None:
            headers = {b"content-type": kind.encode("latin-1"), b"authorization": key}
            response = client.post(path, content=body, params=query, headers=headers)
            assert response.status_code < 500, response.text
            assert "Traceback" not in response.text

        call()
    assert server.service.engine.active == 0

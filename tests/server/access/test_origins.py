"""The checks of the `Origin` and `Host` headers."""

from __future__ import annotations

import pytest

from tympan.errors import HostError, OriginError
from tympan.server.access.origins import check_host, check_origin

APP = "https://app.example"
OTHER = "https://other.example"


@pytest.mark.parametrize(
    ("headers", "allowed_origins", "keys_required"),
    [
        ({}, (), False),
        ({}, (APP,), False),
        ({"origin": "http://server:8000", "host": "server:8000"}, (), False),
        ({"origin": "http://server:8000", "host": "server:8000"}, (APP,), True),
        ({"origin": APP, "host": "server"}, (APP,), False),
        ({"origin": OTHER, "host": "server"}, (APP, "*"), False),
        ({"origin": OTHER, "host": "server"}, (), True),
        ({"origin": "http://localhost:3000", "host": "localhost:8000"}, ("localhost",), False),
        ({"origin": "https://app.localhost", "host": "localhost:8000"}, ("localhost", APP), True),
        ({"origin": "http://127.0.0.1:5173", "host": "server"}, ("localhost",), False),
        ({"origin": "http://[::1]:5173", "host": "server"}, ("localhost",), False),
    ],
    ids=[
        "no browser",
        "no browser, origins",
        "own page",
        "own page, origins",
        "allowed",
        "any",
        "keys",
        "local",
        "subdomain",
        "IPv4",
        "IPv6",
    ],
)
def test_allowed(headers: dict[str, str], allowed_origins: tuple[str, ...], keys_required: bool) -> None:
    check_origin(headers, allowed_origins, keys_required)


@pytest.mark.parametrize(
    ("headers", "allowed_origins", "keys_required"),
    [
        ({"origin": OTHER, "host": "server"}, (), False),
        ({"origin": "null", "host": "server"}, (), False),
        ({"origin": OTHER}, (), False),
        ({"origin": "http://server", "host": "server:8000"}, (), False),
        ({"origin": OTHER, "host": "server"}, (APP,), False),
        ({"origin": OTHER, "host": "server"}, (APP,), True),
        ({"origin": "http://[", "host": "["}, (), False),
        ({"origin": "http://localhost.evil.example", "host": "localhost:8000"}, ("localhost",), False),
        ({"origin": "http://evillocalhost", "host": "localhost:8000"}, ("localhost",), False),
        ({"origin": "http://10.0.0.1", "host": "localhost:8000"}, ("localhost",), False),
        ({"origin": "file://localhost", "host": "localhost:8000"}, ("localhost",), False),
        ({"origin": "http://localhost:3000", "host": "localhost:8000"}, (), False),
    ],
    ids=[
        "other page",
        "opaque",
        "no host",
        "other port",
        "not listed",
        "not listed, keys",
        "no URL",
        "name that begins alike",
        "name that ends alike",
        "network",
        "not HTTP",
        "local, not allowed",
    ],
)
def test_refused(headers: dict[str, str], allowed_origins: tuple[str, ...], keys_required: bool) -> None:
    with pytest.raises(OriginError, match=r"is not allowed; .* allowed_origins"):
        check_origin(headers, allowed_origins, keys_required)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5173"])
def test_refusal_of_a_local_page_names_the_option(origin: str) -> None:
    with pytest.raises(OriginError, match="--allowed-origin localhost"):
        check_origin({"origin": origin, "host": "localhost:8000"}, (), False)
    with pytest.raises(OriginError) as caught:
        check_origin({"origin": OTHER, "host": "localhost:8000"}, (), False)
    assert "localhost" not in str(caught.value)


def test_message_is_short() -> None:
    with pytest.raises(OriginError) as caught:
        check_origin({"origin": "https://" + "a" * 1000, "host": "server"}, (), False)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3:8000", "[::1]:8000", "[fd00::1]", "localhost", "LOCALHOST:80", "localhost.", "a.localhost",
     "asr.example", "ASR.example:8000", None],
)  # fmt: skip
def test_allowed_hosts(host: str | None) -> None:
    check_host({} if host is None else {"host": host}, ("Asr.example",), keys_required=False)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "asr.example.evil",
     "xasr.example", "[", "[::1", "", ":8000", "server"],
)  # fmt: skip
def test_refused_hosts(host: str) -> None:
    with pytest.raises(HostError, match=r"is not allowed without API keys; .* allowed_hosts"):
        check_host({"host": host}, ("asr.example",), keys_required=False)
    check_host({"host": host}, (), keys_required=True)
    check_host({"host": host}, ("*",), keys_required=False)

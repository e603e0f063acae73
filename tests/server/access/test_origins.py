"""The check of the `Origin` header."""

from __future__ import annotations

import pytest

from tympan.errors import OriginError
from tympan.server.access.origins import check_origin

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
    ],
    ids=["no browser", "no browser, origins", "own page", "own page, origins", "allowed", "any", "keys"],
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
    ],
    ids=["other page", "opaque", "no host", "other port", "not listed", "not listed, keys"],
)
def test_refused(headers: dict[str, str], allowed_origins: tuple[str, ...], keys_required: bool) -> None:
    with pytest.raises(OriginError, match=r"is not allowed; .* allowed_origins"):
        check_origin(headers, allowed_origins, keys_required)


def test_message_is_short() -> None:
    with pytest.raises(OriginError) as caught:
        check_origin({"origin": "https://" + "a" * 1000, "host": "server"}, (), False)
    assert len(str(caught.value)) < 200

"""A server with the embedded model, for the vendors' own packages; only the URL and the key differ from production."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.clients import KEY
from support.server import LiveServer


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", api_keys=(KEY,), host="127.0.0.1", wyoming_port=0) as server:
        yield server

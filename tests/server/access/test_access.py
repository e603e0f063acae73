"""Access over real sockets: key files that change, origins, TLS."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tympan.errors import ConfigError
from tympan.server.access.keys import hash_of


def status(server: LiveServer, *, key: str | None = None, origin: str | None = None, path: str = "/v1/stream") -> int:
    """Return the status of the response to an opening request."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = server.url(path)
    try:
        with connect(url, additional_headers=headers, origin=None if origin is None else Origin(origin)):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_key_file_changes_while_serving(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(hash_of("old"))
    with LiveServer(api_keys_file=str(file), host="127.0.0.1") as server:
        assert [status(server, key=key) for key in ("old", "new", None)] == [101, 401, 401]
        file.write_text(hash_of("new"))
        os.utime(file, ns=(1, 1))
        wait_until(lambda: status(server, key="new") == 101)
        assert status(server, key="old") == 401


@pytest.mark.parametrize(
    ("settings", "origin", "expected"),
    [
        ({}, None, 101),
        ({}, "https://evil.example", 403),
        ({}, "null", 403),
        ({"allowed_origins": ["https://app.example"]}, "https://app.example", 101),
        ({"allowed_origins": ["https://app.example"]}, "https://evil.example", 403),
        ({"allowed_origins": ["*"]}, "https://evil.example", 101),
        ({"api_keys": ["key"]}, "https://any.example", 101),
        ({"api_keys": ["key"], "allowed_origins": ["https://app.example"]}, "https://evil.example", 403),
    ],
)
def test_origins(settings: dict[str, object], origin: str | None, expected: int) -> None:
    with LiveServer(host="127.0.0.1", **settings) as server:
        key = "key" if "api_keys" in settings else None
        assert status(server, key=key, origin=origin) == expected
        assert status(server, key=key, origin=f"http://127.0.0.1:{server.port}") == 101, "the server's own page"


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(key)
    for part in certificate.cert_chain_pems:
        part.write_to_path(chain, append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with LiveServer(tls_certificate=str(chain), tls_key=str(key)) as server:
        with connect(server.url().replace("ws:", "wss:"), ssl=context) as socket:
            socket.send(bytes(3840 * 200))
            socket.send("EOS")
            messages = [json.loads(message) for message in socket]
        assert "word19" in "".join(message.get("text", "") for message in messages)
        with urlopen(server.http("/ready").replace("http:", "https:"), context=context) as answer:
            assert answer.status == 200


def test_invalid_certificate(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text("no certificate")
    for name in ("chain.pem", "missing.pem"):
        with pytest.raises(ConfigError, match="cannot serve TLS"), LiveServer(tls_certificate=str(tmp_path / name)):
            pass

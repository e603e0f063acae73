"""A server with few file descriptors answers, whatever sockets are open."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest
import trustme
from fuzz_server import ServerProcess

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(120)]

DESCRIPTORS = 64
SOCKETS = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "server.log", descriptors=DESCRIPTORS)
    yield server
    server.stop()


def test_idle_sockets_do_not_keep_others_out(server: ServerProcess) -> None:
    peers = [server.connect() for _ in range(SOCKETS)]
    for _ in range(10):
        assert httpx.get(server.http("/health"), timeout=5).status_code == 200
        peers += [server.connect() for _ in range(5)]
    text = httpx.get(server.http("/metrics"), timeout=5).text
    limit = float(re.findall(r"^tympan_connections_limit (\S+)", text, re.MULTILINE)[0])
    assert float(re.findall(r"^tympan_connections (\S+)", text, re.MULTILINE)[0]) <= limit < DESCRIPTORS
    for peer in peers:
        peer.close()
    assert not server.logged_errors, server.logged_errors[:2000]


def test_silent_tls_connections_are_closed(tmp_path: Path) -> None:
    """A client that connects and does not begin the TLS handshake is cut soon, and others are served meanwhile."""
    authority = trustme.CA()
    certificate = tmp_path / "certificate.pem"
    issued = authority.issue_cert("127.0.0.1")
    certificate.write_bytes(b"".join(part.bytes() for part in (issued.private_key_pem, *issued.cert_chain_pems)))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = ServerProcess(tmp_path / "server.log", tls_certificate=certificate)
    try:
        peers = [server.connect() for _ in range(50)]
        started_at = time.monotonic()
        closed: list[float] = []

        def wait_for_close(number: int) -> None:
            peers[number].settimeout(40)
            with suppress(ConnectionError):
                assert peers[number].recv(1) == b""
            closed.append(time.monotonic() - started_at)

        threads = [threading.Thread(target=wait_for_close, args=(number,)) for number in range(0, 50, 10)]
        for thread in threads:
            thread.start()
        url = f"https://127.0.0.1:{server.port}/health"
        assert httpx.get(url, verify=context, timeout=5).status_code == 200
        for thread in threads:
            thread.join()
        assert len(closed) == len(threads)
        assert max(closed) < 30, "asyncio's default is 60 s"
        for peer in peers:
            peer.close()
    finally:
        server.stop()

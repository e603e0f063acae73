"""Streams and files through nginx, Caddy and HAProxy, with the configurations of `docs/operations/proxies.md`."""

from __future__ import annotations

import io
import re
import shutil
import socket
import ssl
import subprocess
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme
from support.clients import wav
from support.ports import free_port
from support.server import LiveServer
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tympan.engine.scripted import scripted_words

pytestmark = pytest.mark.clients

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "proxies.md"
DEBIAN = {"nginx": "nginx", "caddy": "caddy", "haproxy": "haproxy"}


class Proxy:
    """A proxy that runs, and how clients reach it."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self.tls = tls
        self.origin = Origin(f"https://127.0.0.1:{port}")

    def url(self, path: str) -> str:
        return f"wss://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def backend() -> Iterator[LiveServer]:
    """A server without keys, which therefore checks hosts and origins."""
    with LiveServer() as server:
        yield server


@pytest.fixture(scope="module", params=DEBIAN)
def proxy(
    request: pytest.FixtureRequest, backend: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    name: str = request.param
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed; its Debian package is {DEBIAN[name]}")
    folder = tmp_path_factory.mktemp(name)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    for file, blobs in {
        "chain.pem": certificate.cert_chain_pems,
        "key.pem": [certificate.private_key_pem],
        "chain-and-key.pem": [*certificate.cert_chain_pems, certificate.private_key_pem],
    }.items():
        (folder / file).write_bytes(b"".join(blob.bytes() for blob in blobs))
    port = free_port()
    text = re.search(rf"```{name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert text is not None
    moved = {"127.0.0.1:8000": f"127.0.0.1:{backend.port}", "/etc/ssl/asr.example": str(folder)}
    config = replaced(text[1], moved)
    with socket.socket() as failed, running(name, program, config, folder, port, refusing_port(failed)):
        yield Proxy(port, tls)


def replaced(text: str, moved: Mapping[str, str]) -> str:
    """Return the text with other addresses, each of which must occur or belong to another proxy."""
    for old, new in moved.items():
        text = text.replace(old, new)
    return text


def refusing_port(unused: socket.socket) -> int:
    """Return a port that refuses connections, and that no other process can take, as long as the socket is open."""
    unused.bind(("127.0.0.1", 0))
    return int(unused.getsockname()[1])


@contextmanager
def running(name: str, program: str, config: str, folder: Path, port: int, refusing: int) -> Iterator[None]:
    """Run a proxy on `port`; of HAProxy's servers the second one, at the port `refusing`, has failed."""
    file = folder / "proxy.conf"
    match name:
        case "nginx":
            own = "".join(
                f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            http = config.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
            file.write_text(f"daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {own} {http} }}")
            command = [program, "-e", f"{folder}/log", "-c", str(file)]
        case "caddy":
            options = "{\nadmin off\nauto_https disable_redirects\n}\n"
            site = f"https://127.0.0.1:{port} {{\ntls {folder}/chain.pem {folder}/key.pem"
            file.write_text(options + config.replace("asr.example {", site))
            command = [program, "run", "--adapter", "caddyfile", "--config", str(file)]
        case _:
            own = config.replace("bind :443", f"bind 127.0.0.1:{port}")
            file.write_text(own.replace("127.0.0.1:8001", f"127.0.0.1:{refusing}"))
            command = [program, "-db", "-f", str(file)]
    with (
        (folder / "output").open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env={"HOME": str(folder)}) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or accepts(port))
            assert process.poll() is None, (folder / "output").read_text()
            yield
        finally:
            process.terminate()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def words(seconds: float) -> list[str]:
    return [word.text for word in scripted_words(round(seconds / 0.08))]


def test_page_and_readiness(proxy: Proxy) -> None:
    for path in ("/", "/ready"):
        assert httpx.get(proxy.http(path), verify=proxy.tls).status_code == 200


def test_stream_of_the_servers_own_page(proxy: Proxy) -> None:
    """The server compares `Origin` with `Host`, so the proxy must forward it with its port."""
    url = proxy.url("/v1/stream?events=word")
    with connect(url, ssl=proxy.tls, origin=proxy.origin) as socket:
        for _ in range(6):
            socket.send(bytes(48_000 * 2))  # larger than the usual buffers
        socket.send("EOS")
        heard = re.findall(r'"text":\s*"(word\d+)"', "".join(map(str, socket)))
        assert socket.close_code == 1000
    assert heard == words(12.0)


def test_refusals_and_close_codes_arrive(proxy: Proxy) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(proxy.url("/v1/stream"), ssl=proxy.tls, origin=Origin("https://evil.example")),
    ):
        pass
    assert refused.value.response.status_code == 403
    with (
        connect(proxy.url("/v1/stream"), ssl=proxy.tls) as socket,
        pytest.raises(ConnectionClosedError, match=r"received 1003 .* audio is sent in binary frames"),
    ):
        socket.send("nonsense")
        list(socket)


def test_large_file(proxy: Proxy) -> None:
    """24 MB, just below the server's own limit."""
    seconds = 62.0
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 4, 48_000, 0, "NONE", ""))
        writer.writeframes(bytes(round(seconds * 48_000) * 8))
    data = file.getvalue()
    assert len(data) > 23_000_000
    answer = httpx.post(
        proxy.http("/v1/audio/transcriptions"),
        files={"file": ("a.wav", data)},
        data={"model": "x"},
        verify=proxy.tls,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].split() == words(seconds)


def test_events_of_a_file_arrive_while_it_is_transcribed(proxy: Proxy, backend: LiveServer) -> None:
    data = wav(np.zeros(60 * 8_000, np.float32), 8_000)
    active = []
    with httpx.stream(
        "POST",
        proxy.http("/v1/audio/transcriptions"),
        files={"file": ("a.wav", data)},
        data={"model": "x", "stream": "true"},
        verify=proxy.tls,
        timeout=60,
    ) as answer:
        active = [backend.service.engine.active for line in answer.iter_lines() if line.startswith("data:")]
    assert active[0] == 1


def test_file_is_transcribed_while_it_arrives(proxy: Proxy, backend: LiveServer) -> None:
    """The body is sent only as far as the server has begun with it."""
    data = wav(np.zeros(30 * 8_000, np.float32), 8_000)

    def body() -> Iterator[bytes]:
        yield data[:100_000]
        wait_until(lambda: backend.service.engine.active == 1)
        yield data[100_000:]

    answer = httpx.post(proxy.http("/v1/listen"), content=body(), verify=proxy.tls, timeout=60)
    assert answer.status_code == 200, answer.text

"""Generated containers, through uploads and live streams: no stall, no growth, no crash."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx2 as httpx
import pytest
from fuzz_server import MIB, ServerProcess, frame
from loop_watch import longest_stall
from support.hostile_containers import hostile

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

FILES = int(os.environ.get("HOSTILE_FILES", "300"))  # 2,000 for the figure in docs/reliability.md
CLIENTS = 4
UPLOADS = ("/v1/listen", "/api/asr-streaming")
LIVE = ("/v1/stream?encoding=auto", "/v1/stream?encoding=opus")
EOS = frame(1, b"EOS")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("hostile") / "server.log")
    yield server
    server.stop()


def upload(server: ServerProcess, seed: int) -> str:
    name, data = hostile(seed)
    answer = httpx.post(server.http(UPLOADS[seed % 2]), content=data, timeout=60)
    assert answer.status_code in (200, 400), f"{name}: {answer.status_code} {answer.text}"
    return f"upload {answer.status_code}"


def live(server: ServerProcess, seed: int) -> str:
    """Send a file in pieces; the end of the stream must be a close frame with a code of the client's making."""
    name, data = hostile(seed)
    received = b""
    with server.upgraded(LIVE[seed % 2]) as peer, suppress(ConnectionError):
        peer.settimeout(60)
        for start in range(0, len(data), 16_384):
            peer.sendall(frame(2, data[start : start + 16_384]))
        peer.sendall(EOS)
        while b"\x88" not in received[-200:]:
            answer = peer.recv(1 << 16)
            if not answer:
                break
            received = (received + answer)[-4096:]
    code = int.from_bytes(received[(at := received.rindex(b"\x88")) + 2 : at + 4], "big")
    assert code in (1000, 1003, 1007), f"{name}: closed with {code}: {received[-300:]!r}"
    return f"live {code}"


def test_hostile_containers(server: ServerProcess) -> None:
    outcomes: Counter[str] = Counter()
    upload(server, 0)  # the memory of a server that has decoded one file
    before = server.memory

    def attack() -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            attacks = [clients.submit((upload, live)[seed % 4 // 2], server, seed) for seed in range(FILES)]
            outcomes.update(each.result() for each in attacks)

    stall = longest_stall(server, attack)
    figures = {
        "files": FILES,
        "ends": dict(sorted(outcomes.items())),
        "stall_ms": round(1000 * stall),
        "grown": server.memory / before,
    }
    print(f"\n{json.dumps(figures)}")
    assert len(outcomes) == 4, "both kinds of clients, both ends"
    assert server.memory < 1.2 * before + 8 * MIB
    assert httpx.get(server.http("/health")).json()["active"] == 0
    assert server.workers == 0
    assert not server.logged_errors, server.logged_errors[:3000]

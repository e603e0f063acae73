"""A rolling update behind a proxy: the new server is ready, the old one drains, and no client loses a word."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from support.faults.callers import Crowd, none_lost, until
from support.faults.process import ServerProcess
from support.ports import free_port

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(180)]

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "proxies.md"
SERVE_MARKS = ("-m", "support.faults.serve", "none")
STREAMS = 100
CALL_SECONDS = 25.0
DRAIN_DELAY_SECONDS = 8.0  # HAProxy takes a server out of rotation after three checks, one every 2 s
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


@contextmanager
def haproxy(folder: Path, old: int, new: int) -> Iterator[int]:
    """Run HAProxy with the configuration of the documentation, without TLS; yield its port."""
    assert HAPROXY is not None
    found = re.search(r"```haproxy\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    port = free_port()
    text = re.sub(r"bind :443 .*", f"bind 127.0.0.1:{port}", found[1])
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{old}").replace("127.0.0.1:8001", f"127.0.0.1:{new}")
    file = folder / "haproxy.conf"
    file.write_text(text)
    with (
        (folder / "haproxy.log").open("wb") as log,
        subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=log) as process,
    ):
        try:
            yield port
        finally:
            process.terminate()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed; its Debian package is haproxy")
async def test_no_word_is_lost(tmp_path: Path) -> None:
    old = ServerProcess(tmp_path / "old.log", SERVE_MARKS, drain_delay_seconds=DRAIN_DELAY_SECONDS, grace_seconds=10)
    new = ServerProcess(tmp_path / "new.log", SERVE_MARKS)
    with haproxy(tmp_path, old.port, new.port) as port, old, ExitStack() as stack:
        await until(lambda: is_ready(port))
        crowd = Crowd.of(STREAMS, CALL_SECONDS)
        calls = crowd.start(f"ws://127.0.0.1:{port}/v1/stream")
        await crowd.wait_for_words()
        stack.push(new)  # starts in a thread, since the callers run in this one
        await asyncio.to_thread(new.__enter__)
        await until(lambda: is_ready(new.port))
        crowd.mark_fault()
        old.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(calls, 120)
        assert await asyncio.to_thread(old.process.wait, 20) == -signal.SIGTERM
        sessions = new.get("/metrics").text
        figures = crowd.figures("rolling update behind HAProxy")
    assert none_lost(figures)
    assert crowd.close_codes() == {1012: STREAMS}
    assert f'tympan_sessions_total{{code="1000",protocol="native"}} {STREAMS}.0' in sessions

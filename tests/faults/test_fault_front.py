"""The server process is killed or stopped, or a client is killed: no word is lost."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest
from support.faults.callers import Crowd, none_lost, until
from support.faults.server import ENVIRONMENT, marks_server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(90)]


async def run_with_signal(crowd: Crowd, log: Path, number: signal.Signals) -> None:
    """Send a signal to the server while all callers send audio; the supervisor starts another one."""
    with marks_server(log) as server:
        calls = crowd.start(server.url)
        await crowd.wait_for_words(5)
        crowd.mark_fault()
        server.signal(number)
        await calls
        assert server.exits == [-number]


async def test_front_killed(tmp_path: Path) -> None:
    crowd = Crowd.of(50, seconds=10)
    await run_with_signal(crowd, tmp_path / "log", signal.SIGKILL)
    assert none_lost(crowd.figures("front process killed"))
    assert set(crowd.close_codes()) <= {1006, 1008}, "1008: the new process has no stream to resume"


async def test_sigterm_under_load(tmp_path: Path) -> None:
    crowd = Crowd.of(100, seconds=10)
    await run_with_signal(crowd, tmp_path / "log", signal.SIGTERM)
    assert none_lost(crowd.figures("SIGTERM"))
    assert crowd.close_codes() == {1012: 100}


@pytest.mark.parametrize(("kind", "resume_seconds"), [("sdk", 2), ("simple", 60)])
async def test_client_killed(tmp_path: Path, kind: str, resume_seconds: int) -> None:
    """Slots are kept for `resume_seconds` if the client requested a resume token."""
    crowd = Crowd.of(20, seconds=10)
    with marks_server(tmp_path / "log", resume_seconds=resume_seconds) as server:
        calls = crowd.start(server.url)
        await crowd.wait_for_words()
        command = [sys.executable, "-m", "support.faults.client", server.url, "5", kind]
        client = await asyncio.create_subprocess_exec(*command, env=ENVIRONMENT)
        await until(lambda: server.active() == 25)
        crowd.mark_fault()
        client.send_signal(signal.SIGKILL)
        await client.wait()
        await until(lambda: server.active() == 20)
        free_after = time.monotonic() - crowd.broke_at
        await calls
    assert none_lost(crowd.figures(f"client killed ({kind})", slots_free_after_seconds=round(free_after, 1)))
    assert not crowd.close_codes()

"""The server's process is killed, told to stop, or loses a client: nobody loses a word."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest
from fault_callers import Crowd, none_lost, until
from fault_server import ENVIRONMENT, HERE, marks_server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(90)]


async def signalled(crowd: Crowd, log: Path, number: signal.Signals) -> None:
    """Its server gets a signal while everybody speaks, and another one takes its place."""
    with marks_server(log) as server:
        talking = crowd.start(server.url)
        await crowd.until_heard(5)
        crowd.broken()
        server.signal(number)
        await talking
        assert server.exits == [-number]


async def test_front_killed(tmp_path: Path) -> None:
    crowd = Crowd.of(50, seconds=10)
    await signalled(crowd, tmp_path / "log", signal.SIGKILL)
    assert none_lost(crowd.figures("front process killed"))
    assert set(crowd.ends()) <= {1006, 1008}, "1008: there is no stream to resume"


async def test_sigterm_under_load(tmp_path: Path) -> None:
    crowd = Crowd.of(100, seconds=10)
    await signalled(crowd, tmp_path / "log", signal.SIGTERM)
    assert none_lost(crowd.figures("SIGTERM"))
    assert crowd.ends() == {1012: 100}


@pytest.mark.parametrize(("kind", "longest_seconds"), [("sdk", 2.0 + 2.5), ("simple", 1.5)])
async def test_client_killed(tmp_path: Path, kind: str, longest_seconds: float) -> None:
    """Its slots are kept for `resume_seconds` if it asked for a way back, and looked at once a second."""
    crowd = Crowd.of(20, seconds=10)
    with marks_server(tmp_path / "log", resume_seconds=2) as server:
        talking = crowd.start(server.url)
        await crowd.until_heard()
        command = [sys.executable, str(HERE / "fault_client.py"), server.url, "5", kind]
        client = await asyncio.create_subprocess_exec(*command, env=ENVIRONMENT)
        await until(lambda: server.active() == 25)
        crowd.broken()
        client.send_signal(signal.SIGKILL)
        await client.wait()
        await until(lambda: server.active() == 20)
        free_after = time.monotonic() - crowd.broke_at
        await talking
    assert none_lost(crowd.figures(f"client killed ({kind})", slots_free_after_seconds=round(free_after, 1)))
    assert free_after < longest_seconds
    assert not crowd.ends()

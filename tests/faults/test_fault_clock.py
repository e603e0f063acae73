"""The wall clock jumps an hour ahead and back: no stream ends, and no time on the wire changes."""

from __future__ import annotations

import asyncio
import signal
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.faults.callers import Crowd, none_lost, until
from support.faults.server import SupervisedServer, marks_server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

HOUR = 3600.0


def clock_offset(server: SupervisedServer) -> float:
    """Return the seconds by which the dates in the server's responses are ahead of this process's clock."""
    with urlopen(f"http://{server.host}:{server.port}/ready") as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


async def test_clock_jump(tmp_path: Path) -> None:
    crowd = Crowd.of(20, seconds=10)
    with marks_server(tmp_path / "log", "clock", resume_seconds=5, session_seconds=60) as server:
        calls = crowd.start(server.url)
        await crowd.wait_for_words()
        crowd.mark_fault()
        for offset in (HOUR, -HOUR):
            server.signal(signal.SIGUSR1)
            await until(lambda offset=offset: abs(clock_offset(server) - offset) < 10)
            await asyncio.sleep(1.5)
        await calls
    figures = crowd.figures("clock jumps an hour", most_seconds_off=round(crowd.max_time_error(), 3))
    assert none_lost(figures)
    assert not crowd.close_codes()
    assert crowd.max_time_error() < 0.01

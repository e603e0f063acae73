"""The wall clock jumps an hour ahead and back again: no stream ends and no time on the wire moves."""

from __future__ import annotations

import asyncio
import signal
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
from fault_callers import Crowd, none_lost, until
from fault_server import Supervised, marks_server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]

HOUR = 3600.0


def ahead(server: Supervised) -> float:
    """How far its clock is ahead of ours: it writes dates into its answers, once a second anew."""
    with urlopen(f"http://{server.host}:{server.port}/ready") as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


async def test_clock_jump(tmp_path: Path) -> None:
    crowd = Crowd.of(20, seconds=10)
    with marks_server(tmp_path / "log", "clock", resume_seconds=5, session_seconds=60) as server:
        talking = crowd.start(server.url)
        await crowd.until_heard()
        crowd.broken()
        for off in (HOUR, -HOUR):
            server.signal(signal.SIGUSR1)
            await until(lambda off=off: abs(ahead(server) - off) < 10)
            await asyncio.sleep(1.5)
        await talking
    figures = crowd.figures("clock jumps an hour", most_seconds_off=round(crowd.most_time_error(), 3))
    assert none_lost(figures)
    assert not crowd.ends()
    assert crowd.most_time_error() < 0.01

"""The recognizer dies, hangs or runs out of memory: streams end with 1011, it restarts, and no word is lost.

In an engine process of a server with several fronts, it ends that process, and the streams continue in the next one.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.faults.callers import Crowd, none_lost, until
from support.faults.server import ENVIRONMENT, FRONTS, embedded_server, marks_server

pytestmark = [pytest.mark.fault, pytest.mark.timeout(90)]

EMBEDDED_RATE = 16_000


@pytest.mark.parametrize(
    ("fault", "number"), [("engine process killed", signal.SIGKILL), ("engine process hung", signal.SIGSTOP)]
)
async def test_engine_process_killed_or_hung(tmp_path: Path, fault: str, number: signal.Signals) -> None:
    """Only the streams of one of several processes are affected."""
    crowd = Crowd.of(12, seconds=10)
    with embedded_server(tmp_path / "log", max_streams=12, engine_seconds=2) as server:
        workers = server.workers()
        calls = crowd.start(server.url, EMBEDDED_RATE)
        await crowd.wait_for_words()
        crowd.mark_fault()
        workers[0].send_signal(number)
        await calls
        assert workers[0] not in server.workers()
        assert not server.exits
    assert none_lost(crowd.figures(fault))
    codes = crowd.close_codes()
    assert codes.pop(1011) == len(crowd.callers) // len(workers)
    # A front learns only from the engine process that the recognizer, which restarts, has no room yet.
    assert set(codes) <= ({1013} if FRONTS > 1 else set())


async def test_engine_thread_hung(tmp_path: Path) -> None:
    """The process ends after all clients have been notified, because a thread in native code cannot be stopped."""
    crowd = Crowd.of(50, seconds=10)
    with marks_server(tmp_path / "log", "hang", engine_seconds=2) as server:
        calls = crowd.start(server.url)
        await crowd.wait_for_words()
        crowd.mark_fault()
        server.signal(signal.SIGUSR1)
        await calls
        assert server.exits == ([1] if FRONTS == 1 else [])
        assert "the engine has made no progress for 2 s; stack of the engine thread" in server.log
        assert "os.read" in server.log, "where it hangs"
    assert none_lost(crowd.figures("engine thread hung"))
    assert crowd.close_codes()[1011] == (50 if FRONTS == 1 else 0)


async def test_engine_out_of_memory(tmp_path: Path) -> None:
    crowd = Crowd.of(50, seconds=10)
    with marks_server(tmp_path / "log", "memory") as server:
        calls = crowd.start(server.url)
        await crowd.wait_for_words()
        crowd.mark_fault()
        server.signal(signal.SIGUSR1)
        await until(lambda: "MemoryError" in server.log)
        await until(lambda: server.ready()[0] == (503 if FRONTS == 1 else 200))
        await until(lambda: server.ready()[0] == 200)
        await calls
        assert not server.exits
        assert "MemoryError" in server.log
    assert none_lost(crowd.figures("engine out of memory"))
    assert crowd.close_codes() == ({1011: 50} if FRONTS == 1 else {})


def test_start_out_of_memory() -> None:
    """The real architecture with random weights starts in a process that is limited to 2.4 GiB."""
    command = [sys.executable, "-m", "tympan", "serve", "--model=random:1b", "--port=0"]
    limit = 2_500_000 * 1024
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        check=False,
    )
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]  # before it, lines about the start if the machine is slow
    assert last.startswith("tympan: not enough memory to start random:1b:"), result.stderr
    assert "Traceback" not in result.stderr

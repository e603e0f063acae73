"""Run one process: read its items as they arrive, keep its log, and kill everything that it started.

A process writes lines of JSON to standard output and everything else to standard error. It runs in a session of its
own, so that it can be killed with all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

TAIL_LINES = 60
_ABORT_SECONDS = 2.0  # for the traceback that a process writes when it is aborted
_LONGEST_LINE = 2000

Message = dict[str, Any]
_running: set[int] = set()


@dataclass
class Outcome:
    """The outcome of one process.

    Attributes:
        items: Messages with results, in order.
        running: Item that had begun and not ended.
        failed: Why the process failed; empty if it did not.
        tail: Last lines of its log.
    """

    items: list[Message] = field(default_factory=list)
    running: str = ""
    finished: bool = False
    garbage: str = ""
    returncode: int | None = None
    timed_out: bool = False
    seconds: float = 0.0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    failed: str = ""

    @property
    def signal(self) -> str | None:
        """Return the name of the signal that ended the process, such as SIGSEGV."""
        if self.returncode is None or self.returncode >= 0:
            return None
        with contextlib.suppress(ValueError):
            return signal.Signals(-self.returncode).name
        return f"signal {-self.returncode}"


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    on_item: Callable[[Message], None],
    on_log: Callable[[str], None],
) -> Outcome:
    """Run ``command`` for at most ``seconds``.

    Args:
        command: The program and its arguments.
        environment: All of its environment.
        seconds: After which the process and all that it started are killed.
        on_item: Called with every message that has a result, as soon as it comes; in a thread.
        on_log: Called with every line of the log, as soon as it comes; in a thread.
    """
    outcome, start = Outcome(), time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    _running.add(process.pid)

    def log(line: str) -> None:
        outcome.tail.append(line[:_LONGEST_LINE])
        on_log(line)

    readers = [
        threading.Thread(target=_read, args=(process.stdout, lambda line: _take(line, outcome, on_item)), daemon=True),
        threading.Thread(target=_read, args=(process.stderr, log), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        process.wait(timeout=max(0.1, seconds))
    except subprocess.TimeoutExpired:
        outcome.timed_out = True
        process.send_signal(signal.SIGABRT)  # Python's fault handler then writes where every thread is
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ABORT_SECONDS)
    finally:
        _kill_group(process.pid)
        _running.discard(process.pid)
    outcome.returncode = process.wait()
    for reader in readers:
        reader.join(timeout=5)
    outcome.seconds = round(time.monotonic() - start, 1)
    outcome.failed = _why(outcome, seconds)
    return outcome


def kill_all() -> None:
    """Kill every process that runs now, with all that it started."""
    for pid in list(_running):
        _kill_group(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _read(stream: IO[bytes], on_line: Callable[[str], None]) -> None:
    for line in iter(stream.readline, b""):
        try:
            on_line(line.decode(errors="replace").rstrip("\n"))
        except Exception as error:  # the process must be able to go on writing
            print(f"a line of a stage could not be kept: {error!r}", file=sys.stderr, flush=True)


def _take(line: str, outcome: Outcome, on_item: Callable[[Message], None]) -> None:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        outcome.garbage = outcome.garbage or line[:200]
    elif "begin" in message:
        outcome.running = message["begin"]
    elif "done" in message:
        outcome.finished = True
    else:
        outcome.running = ""
        outcome.items.append(message)
        on_item(message)


def _why(outcome: Outcome, seconds: float) -> str:
    """Return why the process failed; an empty string if it did not."""
    within = f" in {outcome.running!r}" if outcome.running else ""
    if outcome.timed_out:
        return f"timeout: killed after {seconds:.0f} s{within}"
    if outcome.signal == "SIGKILL":
        return f"killed by SIGKILL{within}: the machine's memory ran out, most likely"
    if outcome.signal is not None:
        return f"killed by {outcome.signal}{within}"
    if outcome.garbage:
        return f"output that is not JSON{within}: {outcome.garbage!r}"
    if outcome.returncode:
        memory = any("OutOfMemoryError" in line or "MemoryError" in line for line in outcome.tail)
        last = outcome.tail[-1][:300] if outcome.tail else ""
        return f"exit status {outcome.returncode}{within}: {'out of memory: ' if memory else ''}{last}"
    return "" if outcome.finished else f"ended before its last item{within}"

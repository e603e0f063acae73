"""As many processes as a load needs: each runs its share of the streams, all from the same moment."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from tympan.bench.load.expected import Expected
from tympan.bench.load.plan import Plan
from tympan.bench.load.score import Outcome
from tympan.bench.load.share import run_share
from tympan.bench.load.speech import Speech

STREAMS_PER_PROCESS = 500
LEAD_SECONDS = 0.5


def processes_for(streams: int) -> int:
    return -(-streams // STREAMS_PER_PROCESS)


def run_load(plan: Plan, speech: Speech, expected: Expected) -> Outcome:
    """Run all streams to their end."""
    count = processes_for(plan.streams)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pipes = [context.Pipe() for _ in range(count)]
    workers = []
    try:
        for number, (_, theirs) in enumerate(pipes):
            share = range(number, plan.streams, count)
            worker = context.Process(target=_work, args=(theirs, plan, speech, expected, share), daemon=True)
            worker.start()
            theirs.close()
            workers.append(worker)
        for ours, _ in pipes:
            ours.recv()
        start = time.monotonic() + LEAD_SECONDS
        for ours, _ in pipes:
            ours.send(start)
        outcome = Outcome()
        for ours, _ in pipes:
            outcome.merge(ours.recv())
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    return outcome


def _work(pipe: Connection, plan: Plan, speech: Speech, expected: Expected, streams: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    pipe.send("ready")
    start: float = pipe.recv()
    pipe.send(asyncio.run(run_share(plan, speech, expected, streams, start)))

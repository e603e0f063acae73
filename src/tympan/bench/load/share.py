"""The streams of one process, each at its own phase; when they are over, what they came to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence

from tympan.bench.load.expected import Expected
from tympan.bench.load.plan import SHORTEST_SESSION_SECONDS, Plan
from tympan.bench.load.score import Outcome, Scorer
from tympan.bench.load.session import Record, Script, Session
from tympan.bench.load.speech import Speech

RETRY_SECONDS = 1.0


def begins(plan: Plan) -> list[float]:
    """For each stream, seconds after the start at which it begins: spread over the ramp, and drawn within its place."""
    draw = random.Random(plan.seed)
    return [plan.ramp * (number + draw.random()) / plan.streams for number in range(plan.streams)]


async def run_share(plan: Plan, speech: Speech, expected: Expected, streams: Sequence[int], start: float) -> Outcome:
    """Run the streams with these numbers. `start` is a moment of `time.monotonic`, the same for all processes."""
    script = Script(plan, speech)
    cpu = time.process_time()
    offsets = begins(plan)
    lives = await asyncio.gather(*(_live(plan, script, start + offsets[number]) for number in streams))
    cpu = time.process_time() - cpu
    scorer = Scorer(plan, speech, expected, start)
    for records in lives:
        for record in records:
            scorer.add(record)
    return scorer.outcome(cpu)


async def _live(plan: Plan, script: Script, begin: float) -> list[Record]:
    """One stream: a session after the other until its time is over."""
    await asyncio.sleep(begin - time.monotonic())
    records = []
    for chunks in _sessions(plan, begin):
        record = await Session(script, chunks).run()
        records.append(record)
        if record.error is not None:
            await asyncio.sleep(RETRY_SECONDS)
    return records


def _sessions(plan: Plan, begin: float) -> Iterator[int]:
    """How many chunks each session has: all that fit, and what is left of the stream's time."""
    yield plan.session_chunks
    shortest = plan.whole_chunks(SHORTEST_SESSION_SECONDS)
    while (left := plan.whole_chunks(begin + plan.stream_seconds - time.monotonic())) >= shortest:
        yield min(plan.session_chunks, left)

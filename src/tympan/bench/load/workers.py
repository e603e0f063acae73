"""The processes that run a load: each runs a share of the streams, and all start at the same moment."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from tympan.bench.load.caller import Caller, Messages, Record
from tympan.bench.load.expected import Expected
from tympan.bench.load.score import Outcome, Scorer
from tympan.bench.load.spec import SHORTEST_SESSION_SECONDS, LoadSpec
from tympan.bench.load.speech import Speech

STREAMS_PER_PROCESS = 500
LEAD_SECONDS = 0.5
RETRY_SECONDS = 1.0


def process_count(streams: int) -> int:
    return -(-streams // STREAMS_PER_PROCESS)


def run_load(spec: LoadSpec, speech: Speech, expected: Expected) -> Outcome:
    """Run all streams to their end and return the merged outcome of all processes."""
    count = process_count(spec.streams)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pipes = [context.Pipe() for _ in range(count)]
    workers = []
    try:
        for number, (_, theirs) in enumerate(pipes):
            share = range(number, spec.streams, count)
            worker = context.Process(target=_work, args=(theirs, spec, speech, expected, share), daemon=True)
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


def _work(pipe: Connection, spec: LoadSpec, speech: Speech, expected: Expected, streams: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    pipe.send("ready")
    start: float = pipe.recv()
    pipe.send(asyncio.run(run_streams(spec, speech, expected, streams, start)))


def start_offsets(spec: LoadSpec) -> list[float]:
    """Return the seconds after which each stream begins: drawn at random, one in each equal part of the ramp."""
    draw = random.Random(spec.seed)
    return [spec.ramp * (number + draw.random()) / spec.streams for number in range(spec.streams)]


async def run_streams(
    spec: LoadSpec, speech: Speech, expected: Expected, streams: Sequence[int], start: float
) -> Outcome:
    """Run some of the streams in this process.

    Args:
        spec: The load.
        speech: The audio that every stream sends.
        expected: The words that the audio must produce.
        streams: Numbers of the streams to run.
        start: When the load begins, on `time.monotonic`; the same in all processes.
    """
    messages = Messages(spec, speech)
    cpu = time.process_time()
    offsets = start_offsets(spec)
    streams_records = await asyncio.gather(*(_run_stream(spec, messages, start + offsets[n]) for n in streams))
    cpu = time.process_time() - cpu
    scorer = Scorer(spec, speech, expected, start)
    for records in streams_records:
        for record in records:
            scorer.add(record)
    return scorer.outcome(cpu)


async def _run_stream(spec: LoadSpec, messages: Messages, begin: float) -> list[Record]:
    """Run one session after the other until the stream's time is over."""
    await asyncio.sleep(begin - time.monotonic())
    records = []
    for chunks in _session_chunks(spec, begin):
        record = await Caller(messages, chunks).run()
        records.append(record)
        if record.error is not None:
            await asyncio.sleep(RETRY_SECONDS)
    return records


def _session_chunks(spec: LoadSpec, begin: float) -> Iterator[int]:
    """Yield the number of chunks of each session, limited by what is left of the stream's time."""
    yield spec.session_chunks
    shortest = spec.whole_chunks(SHORTEST_SESSION_SECONDS)
    while (left := spec.whole_chunks(begin + spec.stream_seconds - time.monotonic())) >= shortest:
        yield min(spec.session_chunks, left)

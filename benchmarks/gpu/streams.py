"""Streams with churn, run through a runner: their tokens must not depend on their batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tympan.engine.batching.scheduler import Row, Slot
from tympan.engine.batching.step import StepResult, scheduler_for
from tympan.engine.kyutai.runner import KyutaiRunner
from tympan.messages import Flushed
from tympan.models.checkpoints.randomized import synthetic_voice

Turn = dict[int, str]
_VOICE_FRAMES, _FRAME_SAMPLES = 400, 1920


def schedule(slots: int, turns: int) -> list[Turn]:
    """Return the action of each slot's stream at each turn.

    Actions are frames, pauses, flushes and, rarely, a replay of frames; some streams leave and others begin.
    """
    generator = random.Random(0)
    choices = (["frame"] * 12 + ["flush", "wait", "wait"] + ["leave"] * (turns > 100)) * 4 + ["again"]
    return [{slot: generator.choice(choices) for slot in range(slots)} for _ in range(turns)]


def by_stream(turns: Sequence[Turn]) -> list[list[tuple[int, str]]]:
    """Return the schedule's streams in the order in which they begin, each with what it does and nothing else."""
    streams: list[list[tuple[int, str]]] = []
    current: dict[int, list[tuple[int, str]]] = {}
    for turn in turns:
        for slot, action in turn.items():
            if action == "leave":
                current.pop(slot, None)
            elif action != "wait" and (slot in current or action != "again"):
                if slot not in current:
                    current[slot] = []
                    streams.append(current[slot])
                current[slot].append((slot, action))
    return streams


def voice_frames() -> Any:
    """Return a synthetic voice, ``[frames, samples]`` float32."""
    generator = torch.Generator().manual_seed(5)
    return (
        synthetic_voice(_VOICE_FRAMES * _FRAME_SAMPLES, 24_000, generator).view(_VOICE_FRAMES, _FRAME_SAMPLES).numpy()
    )


def run_rows(runner: KyutaiRunner, rows: Sequence[Row]) -> StepResult:
    """Run one step and return its result."""
    result = runner.launch(rows)
    if isinstance(result, StepResult):
        return result
    result.wait()
    return result.read()


@dataclass
class Followed:
    """Tokens of every stream, in the order in which the streams begin.

    Attributes:
        tokens: Tokens of each stream.
        gaps: Difference of the two largest logits by the standard deviation of the row's logits, for each token.
    """

    tokens: list[list[int]] = field(default_factory=list)
    gaps: list[list[float]] = field(default_factory=list)


@contextmanager
def logit_gaps(runner: KyutaiRunner) -> Iterator[list[float]]:
    """Record the gap of each row that an eager runner runs, in the order of the rows; the list is the latest step's."""
    lm: Any = runner.program.model.lm
    step = lm.step
    latest: list[float] = []

    def recording(*arguments: Any, **options: Any) -> Any:
        output = step(*arguments, **options)
        top = output.logits.topk(2, dim=-1).values
        latest[:] = ((top[:, 0] - top[:, 1]) / output.logits.std(dim=-1)).tolist()
        return output

    lm.step = recording
    try:
        yield latest
    finally:
        del lm.step


def follow(runner: KyutaiRunner, turns: Sequence[Turn], *, with_gaps: bool = False) -> Followed:
    """Run the schedule; ``with_gaps`` requires a runner without graphs."""
    if with_gaps:
        with logit_gaps(runner) as gaps:
            return _follow(runner, turns, gaps)
    return _follow(runner, turns, None)


def _follow(runner: KyutaiRunner, turns: Sequence[Turn], latest: list[float] | None) -> Followed:
    voice, scheduler, followed = voice_frames(), scheduler_for(runner), Followed()
    current: dict[int, Slot] = {}
    pushed: dict[Slot, int] = {}

    def step() -> None:
        batch = scheduler.next_batch()
        if not batch.rows:
            return
        result = run_rows(runner, batch.rows)
        gaps = latest or [0.0] * len(batch.rows)
        for row, token, gap in zip(batch.rows, result.tokens, gaps, strict=True):
            number = row.slot.stream
            assert isinstance(number, int)
            followed.tokens[number].append(token)
            followed.gaps[number].append(gap)
            if row.marker is not None:
                scheduler.end_flush(row.slot, 0)

    def drain() -> None:
        while not scheduler.idle:
            step()

    for turn in turns:
        for index, action in turn.items():
            if action in ("leave", "again"):
                drain()  # so that a stream's tokens do not depend on when this happens
                if action == "again" and index in current:
                    scheduler.replay(current[index], current[index].number - 20)
                elif action == "leave":
                    current.pop(index, None)
            elif action != "wait":
                if index not in current:
                    current[index] = Slot(index, len(followed.tokens))
                    followed.tokens.append([])
                    followed.gaps.append([])
                    pushed[current[index]] = 0
                slot = current[index]
                if action == "flush":
                    scheduler.add_marker(slot, Flushed(0))
                else:
                    place = (pushed[slot] + 37 * index) % _VOICE_FRAMES
                    pushed[slot] += 1
                    scheduler.push(slot, 0.0, voice[place])
        step()
    drain()
    return followed


def follow_alone(runner: KyutaiRunner, turns: Sequence[Turn]) -> Followed:
    """Run each of the schedule's streams on its own."""
    alone = Followed()
    for actions in by_stream(turns):
        one = follow(runner, [{slot: action} for slot, action in actions])
        alone.tokens += one.tokens
        alone.gaps += one.gaps
    return alone


def follow_in_step(runner: KyutaiRunner, frames: int, *, with_gaps: bool = False) -> Followed:
    """Run a stream in every slot, all of them in every step: a batch has the same rows with graphs and without."""
    voice = voice_frames()
    slots = [Slot(index, index) for index in range(runner.slots)]
    followed = Followed([[] for _ in slots], [[] for _ in slots])

    def run(latest: list[float] | None) -> Followed:
        for frame in range(frames):
            rows = [
                Row(slot, voice[(frame + 37 * slot.index) % _VOICE_FRAMES], frame == 0, number=frame) for slot in slots
            ]
            result = run_rows(runner, rows)
            for index, token in enumerate(result.tokens):
                followed.tokens[index].append(token)
                followed.gaps[index].append(latest[index] if latest else 0.0)
        return followed

    if not with_gaps:
        return run(None)
    with logit_gaps(runner) as gaps:
        return run(gaps)


def differences(found: Followed, expected: Followed, gaps: Followed | None = None) -> dict[str, Any]:
    """Compare two runs of the same streams.

    Args:
        found: The tokens to check.
        expected: The tokens to compare with.
        gaps: The run that has gaps; by default ``expected``.

    Returns:
        streams_differing; first_place, the least frame at which a stream differs for the first time; gap_there, the
        largest gap of the logits at such a place. Later differences are ignored, because the streams have different
        pasts.
    """
    known = expected if gaps is None else gaps
    places: list[tuple[int, int]] = []
    for stream, (one, other) in enumerate(zip(found.tokens, expected.tokens, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"stream {stream} has {len(one)} tokens, expected {len(other)}")
        first = next((place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None)
        if first is not None:
            places.append((stream, first))
    there = [known.gaps[stream][place] for stream, place in places]
    return {
        "streams_differing": len(places),
        "first_place": min((place for _, place in places), default=None),
        "gap_there": float(f"{max(there, default=0.0):.2e}"),
    }

"""A row in a batch equals that stream alone, whatever joins, leaves or pauses beside it, past both rings' wrap."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_speech import speech
from torch import Tensor

from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.lm import LM, LMState
from tympan.models.mimi import MimiEncoder, MimiState

SLOTS = 16
LONGEST = 130  # frames; the tiny model's rings hold 25 and 100


@dataclass
class Model:
    mimi: MimiEncoder
    lm: LM


@cache
def model(temperature: float = 0.0) -> Model:
    checkpoint = open_checkpoint("random:tiny")
    return Model(checkpoint.mimi(), checkpoint.lm(dtype=torch.float32, temperature=temperature))


@dataclass
class Trace:
    """What one stream got out."""

    codes: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    pauses: list[Tensor] = field(default_factory=list)


@cache
def audio(seed: int) -> Tensor:
    return speech(LONGEST, seed)


def step(networks: Model, codec: MimiState, words: LMState, frames: Tensor, rows: Tensor, traces: list[Trace]) -> None:
    codes = networks.mimi.encode(frames, codec, rows)
    output = networks.lm.step(codes, words, rows)
    for row, trace in enumerate(traces):
        trace.codes.append(codes[row])
        trace.tokens.append(int(output.token[row]))
        trace.pauses.append(output.pauses[row])


@cache
def alone(seed: int, temperature: float = 0.0) -> Trace:
    networks, rows, trace = model(temperature), torch.tensor([0]), Trace()
    codec, words = networks.mimi.init_state(1), networks.lm.init_state(1)
    words.seed.fill_(seed)
    for frame in audio(seed):
        step(networks, codec, words, frame[None], rows, [trace])
    return trace


def assert_equal(trace: Trace, seed: int, temperature: float = 0.0) -> None:
    expected = alone(seed, temperature)
    count = len(trace.tokens)
    if count:
        assert torch.equal(torch.stack(trace.codes), torch.stack(expected.codes[:count]))
    assert trace.tokens == expected.tokens[:count]
    for found, pauses in zip(trace.pauses, expected.pauses, strict=False):
        torch.testing.assert_close(found, pauses, rtol=0, atol=1e-5)


class Server:
    """Streams in slots: the least that a scheduler does."""

    def __init__(self, networks: Model) -> None:
        self.networks = networks
        self.codec, self.words = networks.mimi.init_state(SLOTS), networks.lm.init_state(SLOTS)
        self.streams: dict[int, tuple[int, Trace]] = {}
        self.finished: list[tuple[int, Trace]] = []

    def join(self, slot: int, seed: int) -> None:
        self.leave(slot)
        rows = torch.tensor([slot])
        self.codec.reset(rows)
        self.words.reset(rows)
        self.words.seed[rows] = seed
        self.streams[slot] = (seed, Trace())

    def leave(self, slot: int) -> None:
        if slot in self.streams:
            self.finished.append(self.streams.pop(slot))

    def run(self, slots: list[int], steps: int) -> None:
        """``steps`` steps of those of ``slots`` that have a stream with audio left; the others pause."""
        for _ in range(steps):
            due = [slot for slot in slots if slot in self.streams and len(self.streams[slot][1].tokens) < LONGEST]
            if not due:
                return
            chosen = [self.streams[slot] for slot in due]
            frames = torch.stack([audio(seed)[len(trace.tokens)] for seed, trace in chosen])
            traces = [trace for _, trace in chosen]
            step(self.networks, self.codec, self.words, frames, torch.tensor(due), traces)


SLOT = st.integers(0, SLOTS - 1)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), SLOT, st.integers(0, 11)),
        st.tuples(st.just("leave"), SLOT),
        st.tuples(st.just("run"), st.lists(SLOT, min_size=1, unique=True), st.integers(1, 40)),
    ),
    max_size=14,
)


@pytest.mark.long
@given(first=st.lists(st.integers(0, 11), min_size=1, max_size=SLOTS), events=EVENTS)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_any_schedule(first: list[int], events: list[tuple]) -> None:  # type: ignore[type-arg]
    server = Server(model())
    for slot, seed in enumerate(first):
        server.join(slot, seed)
    for name, *arguments in events:
        getattr(server, name)(*arguments)
    for seed, trace in (*server.finished, *server.streams.values()):
        assert_equal(trace, seed)


@pytest.mark.long
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_sixteen_streams_past_both_rings(temperature: float) -> None:
    server = Server(model(temperature))
    for slot in range(SLOTS):
        server.join(slot, slot % 12)
        server.run(list(range(slot + 1)), 3)
    server.run(list(range(SLOTS)), LONGEST)
    for seed, trace in server.streams.values():
        assert len(trace.tokens) == LONGEST
        assert_equal(trace, seed, temperature)


def test_a_temperature_makes_the_seed_matter() -> None:
    networks, rows, traces = model(0.7), torch.tensor([0, 1]), [Trace(), Trace()]
    codec, words = networks.mimi.init_state(2), networks.lm.init_state(2)
    words.seed.copy_(torch.tensor([1, 2]))
    for frame in audio(0)[:30]:
        step(networks, codec, words, frame.expand(2, -1), rows, traces)
    assert traces[0].tokens != traces[1].tokens
    assert torch.equal(torch.stack(traces[0].codes), torch.stack(traces[1].codes))

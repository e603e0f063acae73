"""A stream gives the same results alone and in a batch that other streams join, leave or pause, past both rings."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.model_speech import speech
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
class Results:
    """Results of one stream."""

    codes: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    pauses: list[Tensor] = field(default_factory=list)


@cache
def audio(seed: int) -> Tensor:
    return speech(LONGEST, seed)


def step(
    networks: Model, codec: MimiState, words: LMState, frames: Tensor, rows: Tensor, results: list[Results]
) -> None:
    codes = networks.mimi.encode(frames, codec, rows)
    output = networks.lm.step(codes, words, rows)
    for row, result in enumerate(results):
        result.codes.append(codes[row])
        result.tokens.append(int(output.token[row]))
        result.pauses.append(output.pauses[row])


@cache
def alone(seed: int, temperature: float = 0.0) -> Results:
    networks, rows, result = model(temperature), torch.tensor([0]), Results()
    codec, words = networks.mimi.init_state(1), networks.lm.init_state(1)
    words.seed.fill_(seed)
    for frame in audio(seed):
        step(networks, codec, words, frame[None], rows, [result])
    return result


def assert_equal(result: Results, seed: int, temperature: float = 0.0) -> None:
    expected = alone(seed, temperature)
    count = len(result.tokens)
    if count:
        assert torch.equal(torch.stack(result.codes), torch.stack(expected.codes[:count]))
    assert result.tokens == expected.tokens[:count]
    for found, pauses in zip(result.pauses, expected.pauses, strict=False):
        torch.testing.assert_close(found, pauses, rtol=0, atol=1e-5)


class Server:
    """Streams in slots, as a minimal scheduler."""

    def __init__(self, networks: Model) -> None:
        self.networks = networks
        self.codec, self.words = networks.mimi.init_state(SLOTS), networks.lm.init_state(SLOTS)
        self.streams: dict[int, tuple[int, Results]] = {}
        self.finished: list[tuple[int, Results]] = []

    def join(self, slot: int, seed: int) -> None:
        self.leave(slot)
        rows = torch.tensor([slot])
        self.codec.reset(rows)
        self.words.reset(rows)
        self.words.seed[rows] = seed
        self.streams[slot] = (seed, Results())

    def leave(self, slot: int) -> None:
        if slot in self.streams:
            self.finished.append(self.streams.pop(slot))

    def run(self, slots: list[int], steps: int) -> None:
        """Run ``steps`` steps of the streams in ``slots`` that have audio left; the others pause."""
        for _ in range(steps):
            due = [slot for slot in slots if slot in self.streams and len(self.streams[slot][1].tokens) < LONGEST]
            if not due:
                return
            chosen = [self.streams[slot] for slot in due]
            frames = torch.stack([audio(seed)[len(result.tokens)] for seed, result in chosen])
            results = [result for _, result in chosen]
            step(self.networks, self.codec, self.words, frames, torch.tensor(due), results)


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
    for seed, result in (*server.finished, *server.streams.values()):
        assert_equal(result, seed)


@pytest.mark.long
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_sixteen_streams_past_both_rings(temperature: float) -> None:
    server = Server(model(temperature))
    for slot in range(SLOTS):
        server.join(slot, slot % 12)
        server.run(list(range(slot + 1)), 3)
    server.run(list(range(SLOTS)), LONGEST)
    for seed, result in server.streams.values():
        assert len(result.tokens) == LONGEST
        assert_equal(result, seed, temperature)


def test_seed() -> None:
    networks, rows, results = model(0.7), torch.tensor([0, 1]), [Results(), Results()]
    codec, words = networks.mimi.init_state(2), networks.lm.init_state(2)
    words.seed.copy_(torch.tensor([1, 2]))
    for frame in audio(0)[:30]:
        step(networks, codec, words, frame.expand(2, -1), rows, results)
    assert results[0].tokens != results[1].tokens
    assert torch.equal(torch.stack(results[0].codes), torch.stack(results[1].codes))

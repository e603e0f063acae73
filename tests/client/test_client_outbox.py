"""The outbox alone: what a server has not acknowledged is sent again, once, in order."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.client.outbox import CONTAINER_BYTES, FRAME_BYTES, WIRE_ROUNDING_SECONDS, Outbox
from tympan.client.wire import FINISH, AudioFormat

RATE = 8_000
FORMAT = AudioFormat("s16le", RATE, 2)


def content(samples: int) -> bytes:
    return b"".join(index.to_bytes(2, "little") for index in range(samples))


def audio_of(frames: list[bytes | str]) -> bytes:
    return b"".join(frame for frame in frames if isinstance(frame, bytes))


@given(cuts=st.lists(st.integers(0, 4_000), max_size=8), lives=st.lists(st.floats(0, 0.3), max_size=5))
def test_every_server_together_hears_everything_in_order(cuts: list[int], lives: list[float]) -> None:
    """However the audio is split, and wherever servers stop: no gap, and an overlap below the wire's rounding."""
    data = content(2_000)
    outbox = Outbox(FORMAT)
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        outbox.append(data[start:stop])
    outbox.finish()

    position = 0
    for heard_seconds in lives:
        begins = round(outbox.base_seconds * RATE) * 2
        assert position - 2 * RATE * 2 * WIRE_ROUNDING_SECONDS - 2 <= begins <= position
        frames = list(outbox.frames())
        assert frames[-1] == FINISH
        assert audio_of(frames) == data[begins:]
        heard = min(round(heard_seconds * RATE), len(audio_of(frames)) // 2)
        position = max(position, begins + heard * 2)
        outbox.acknowledge(round(heard / RATE, 3))
        outbox.rewind()
    assert audio_of(list(outbox.frames())) == data[round(outbox.base_seconds * RATE) * 2 :]


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.none()), max_size=20), st.integers(0, 20))
def test_flushes_keep_their_places(items: list[bytes | None], frames_before_the_restart: int) -> None:
    outbox = Outbox(FORMAT)
    expected: list[bytes | int] = []
    marker = 0
    for item in items:
        if item is None:
            marker += 1
            outbox.flush(marker)
            expected.append(marker)
        else:
            outbox.append(item)
            expected.append(item)
    for _, _frame in zip(range(frames_before_the_restart), outbox.frames(), strict=False):
        pass
    outbox.rewind()

    def flat(parts: list[bytes | int]) -> list[int]:
        """Bytes one by one, flushes as negative numbers."""
        return [number for part in parts for number in (part if isinstance(part, bytes) else [-part])]

    frames = [frame if isinstance(frame, bytes) else int(json.loads(frame)["id"]) for frame in outbox.frames()]
    assert flat(frames) == flat(expected)


def test_an_acknowledgement_frees_memory_and_never_more_than_was_sent() -> None:
    outbox = Outbox(FORMAT)
    outbox.append(content(8_000))
    assert not outbox.acknowledge(0.5), "nothing has been sent yet"
    assert len(audio_of(list(outbox.frames()))) == 16_000
    assert outbox.acknowledge(0.5)
    outbox.rewind()
    assert outbox.base_seconds == pytest.approx(0.5, abs=0.001)
    assert not outbox.answered
    list(outbox.frames())
    outbox.acknowledge(100.0)
    assert outbox.answered


def test_frames_are_small() -> None:
    outbox = Outbox(FORMAT)
    outbox.append(bytes(FRAME_BYTES * 2 + 1))
    assert [len(frame) for frame in outbox.frames()] == [FRAME_BYTES, FRAME_BYTES, 1]


@given(
    items=st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.none()), max_size=20),
    losses=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5),
    encoding=st.sampled_from(["s16le", "opus"]),
)
def test_a_session_that_is_resumed_hears_everything_once(
    items: list[bytes | None], losses: list[tuple[int, int]], encoding: str
) -> None:
    """Each connection takes some frames, of which the last ones do not arrive."""
    outbox = Outbox(AudioFormat.of(encoding, None))
    for marker, item in enumerate(items):
        if item is None:
            outbox.flush(marker)
        else:
            outbox.append(item)
    outbox.finish()
    arrived: list[bytes | str] = []
    for taken, lost in losses:
        frames = [frame for _, frame in zip(range(taken), outbox.frames(), strict=False)]
        arrived += [frame for frame in frames[: max(0, len(frames) - lost)] if frame != FINISH]
        flushes = sum(isinstance(frame, str) for frame in arrived)
        assert outbox.resume(len(audio_of(arrived)), flushes)
    arrived += list(outbox.frames())
    assert audio_of(arrived) == b"".join(item for item in items if item is not None)
    markers = [json.loads(frame)["id"] for frame in arrived if isinstance(frame, str) and frame != FINISH]
    assert markers == [marker for marker, item in enumerate(items) if item is None]
    assert arrived[-1] == FINISH
    assert outbox.drained


def test_what_the_server_says_it_has_must_be_possible() -> None:
    outbox = Outbox(FORMAT)
    outbox.append(content(100))
    list(outbox.frames())
    outbox.acknowledge(0.01)
    assert not outbox.resume(201, 0), "more than was sent"
    assert not outbox.resume(10, 0), "less than was transcribed"
    assert outbox.resume(200, 0)


def test_of_a_container_the_last_bytes_are_kept() -> None:
    outbox = Outbox(AudioFormat.of("opus", None))
    outbox.append(bytes(CONTAINER_BYTES + FRAME_BYTES))
    list(outbox.frames())
    assert not outbox.resume(0, 0)
    assert outbox.resume(FRAME_BYTES, 0)


def test_a_container_cannot_be_taken_up_by_a_new_session() -> None:
    outbox = Outbox(AudioFormat.of("opus", None))
    outbox.append(b"OggS")
    assert outbox.replayable
    assert list(outbox.frames()) == [b"OggS"]
    assert not outbox.replayable
    assert outbox.answered
    assert not outbox.acknowledge(1.0)

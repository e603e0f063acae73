"""The buffer alone: what a server has not acknowledged is sent again, once, in order."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.client.send_buffer import CONTAINER_BYTES, FRAME_BYTES, WIRE_ROUNDING_SECONDS, SendBuffer
from tympan.client.wire import FINISH, AudioFormat

RATE = 8_000
FORMAT = AudioFormat("s16le", RATE, 2)


def content(samples: int) -> bytes:
    return b"".join(index.to_bytes(2, "little") for index in range(samples))


def audio_of(frames: list[bytes | str]) -> bytes:
    return b"".join(frame for frame in frames if isinstance(frame, bytes))


@given(cuts=st.lists(st.integers(0, 4_000), max_size=8), lives=st.lists(st.floats(0, 0.3), max_size=5))
def test_rewind_resends_in_order(cuts: list[int], lives: list[float]) -> None:
    """However the audio is split, and wherever servers stop: no gap, and an overlap below the wire's rounding."""
    data = content(2_000)
    buffer = SendBuffer(FORMAT)
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        buffer.append(data[start:stop])
    buffer.finish()

    position = 0
    for heard_seconds in lives:
        begins = round(buffer.base_seconds * RATE) * 2
        assert position - 2 * RATE * 2 * WIRE_ROUNDING_SECONDS - 2 <= begins <= position
        frames = list(buffer.frames())
        assert frames[-1] == FINISH
        assert audio_of(frames) == data[begins:]
        heard = min(round(heard_seconds * RATE), len(audio_of(frames)) // 2)
        position = max(position, begins + heard * 2)
        buffer.acknowledge(round(heard / RATE, 3))
        buffer.rewind()
    assert audio_of(list(buffer.frames())) == data[round(buffer.base_seconds * RATE) * 2 :]


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.none()), max_size=20), st.integers(0, 20))
def test_flushes_keep_their_positions(items: list[bytes | None], frames_before_the_restart: int) -> None:
    buffer = SendBuffer(FORMAT)
    expected: list[bytes | int] = []
    marker = 0
    for item in items:
        if item is None:
            marker += 1
            buffer.flush(marker)
            expected.append(marker)
        else:
            buffer.append(item)
            expected.append(item)
    for _, _frame in zip(range(frames_before_the_restart), buffer.frames(), strict=False):
        pass
    buffer.rewind()

    def flat(parts: list[bytes | int]) -> list[int]:
        """Bytes one by one, flushes as negative numbers."""
        return [number for part in parts for number in (part if isinstance(part, bytes) else [-part])]

    frames = [frame if isinstance(frame, bytes) else int(json.loads(frame)["id"]) for frame in buffer.frames()]
    assert flat(frames) == flat(expected)


def test_acknowledge() -> None:
    buffer = SendBuffer(FORMAT)
    buffer.append(content(8_000))
    assert not buffer.acknowledge(0.5), "nothing has been sent yet"
    assert len(audio_of(list(buffer.frames()))) == 16_000
    assert buffer.acknowledge(0.5)
    buffer.rewind()
    assert buffer.base_seconds == pytest.approx(0.5, abs=0.001)
    assert not buffer.answered
    list(buffer.frames())
    buffer.acknowledge(100.0)
    assert buffer.answered


def test_frame_size() -> None:
    buffer = SendBuffer(FORMAT)
    buffer.append(bytes(FRAME_BYTES * 2 + 1))
    assert [len(frame) for frame in buffer.frames()] == [FRAME_BYTES, FRAME_BYTES, 1]


@given(
    items=st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.none()), max_size=20),
    losses=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5),
    encoding=st.sampled_from(["s16le", "opus"]),
)
def test_resume_sends_everything_once(items: list[bytes | None], losses: list[tuple[int, int]], encoding: str) -> None:
    """Each connection takes some frames, of which the last ones do not arrive."""
    buffer = SendBuffer(AudioFormat.of(encoding, None))
    for marker, item in enumerate(items):
        if item is None:
            buffer.flush(marker)
        else:
            buffer.append(item)
    buffer.finish()
    arrived: list[bytes | str] = []
    for taken, lost in losses:
        frames = [frame for _, frame in zip(range(taken), buffer.frames(), strict=False)]
        arrived += [frame for frame in frames[: max(0, len(frames) - lost)] if frame != FINISH]
        flushes = sum(isinstance(frame, str) for frame in arrived)
        assert buffer.resume(len(audio_of(arrived)), flushes)
    arrived += list(buffer.frames())
    assert audio_of(arrived) == b"".join(item for item in items if item is not None)
    markers = [json.loads(frame)["id"] for frame in arrived if isinstance(frame, str) and frame != FINISH]
    assert markers == [marker for marker, item in enumerate(items) if item is None]
    assert arrived[-1] == FINISH
    assert buffer.drained


def test_resume_with_impossible_counts() -> None:
    buffer = SendBuffer(FORMAT)
    buffer.append(content(100))
    list(buffer.frames())
    buffer.acknowledge(0.01)
    assert not buffer.resume(201, 0), "more than was sent"
    assert not buffer.resume(10, 0), "less than was transcribed"
    assert buffer.resume(200, 0)


def test_container_keeps_the_last_bytes() -> None:
    buffer = SendBuffer(AudioFormat.of("opus", None))
    buffer.append(bytes(CONTAINER_BYTES + FRAME_BYTES))
    list(buffer.frames())
    assert not buffer.resume(0, 0)
    assert buffer.resume(FRAME_BYTES, 0)


def test_container_is_not_replayable() -> None:
    buffer = SendBuffer(AudioFormat.of("opus", None))
    buffer.append(b"OggS")
    assert buffer.replayable
    assert list(buffer.frames()) == [b"OggS"]
    assert not buffer.replayable
    assert buffer.answered
    assert not buffer.acknowledge(1.0)

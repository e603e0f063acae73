"""Frames at their timestamps: silence before late ones, parts of overlapping ones removed."""

from __future__ import annotations

import pytest

from tympan.audio.containers.timeline import Timeline, timeline_for

FRAME = 0.1


def timeline(demuxer: str = "matroska", origin: float | None = 0.0) -> Timeline:
    made = timeline_for(demuxer)
    assert made is not None
    if origin is not None:
        made.starts_at(origin)
    return made


def placed(made: Timeline, *starts: float | None) -> list[tuple[float, float]]:
    placements = (made.place(start, FRAME) for start in starts)
    return [(round(silence, 6), round(removed, 6)) for silence, removed in placements]


def test_continuous_frames() -> None:
    jitter = (0.0, 0.11, 0.19, 0.31, None, 0.5)
    assert placed(timeline(), *jitter) == [(0.0, 0.0)] * 6


@pytest.mark.parametrize(("origin", "first", "silence"), [(0.0, 0.7, 0.7), (1.4, 1.9, 0.5), (5.0, 4.0, 0.0)])
def test_start_is_relative_to_the_container(origin: float, first: float, silence: float) -> None:
    assert placed(timeline(origin=origin), first, first + FRAME) == [(silence, 0.0), (0.0, 0.0)]


def test_single_track_joined_late() -> None:
    assert placed(timeline(origin=None), 90_000.0) == [(0.0, 0.0)]
    assert placed(timeline(origin=0.0), 90_000.0) == [(0.0, 0.0)], "no silence of a day"


def test_packets_after_the_first_frame_do_not_move_the_start() -> None:
    made = timeline(origin=1.0)
    assert placed(made, 1.0) == [(0.0, 0.0)]
    made.starts_at(0.0)
    assert placed(made, 1.1) == [(0.0, 0.0)]


def test_gap() -> None:
    assert placed(timeline(), 0.0, 5.0, 5.1) == [(0.0, 0.0), (4.9, 0.0), (0.0, 0.0)]


def test_overlap() -> None:
    starts = (0.0, 0.1, 0.2, 0.3, 0.14, 0.24, 0.34, 0.44)
    removed = [0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.06, 0.0]
    assert placed(timeline(), *starts) == [(0.0, part) for part in removed]


@pytest.mark.parametrize(("demuxer", "jump"), [("matroska", 3601.0), ("mpegts", 11.0), ("mpegts", -1.5)])
def test_new_time_base(demuxer: str, jump: float) -> None:
    starts = [index * FRAME for index in range(30)]
    later = [3.0 + jump, 3.1 + jump]
    assert placed(timeline(demuxer), *starts, *later) == [(0.0, 0.0)] * 32


def test_timestamps_that_begin_again_are_another_file() -> None:
    starts = [index * FRAME for index in range(5)]
    assert placed(timeline(), *starts, *starts) == [(0.0, 0.0)] * 10


def test_formats_without_timestamps() -> None:
    assert all(timeline_for(demuxer) is None for demuxer in ("wav", "mp3", "flac", "aac"))
    assert timeline_for("mov,mp4,m4a,3gp,3g2,mj2") is not None

"""The stall guard by itself: when a model counts as stalled, and where it restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counting import COUNTING_INFO
from support.speech import clip

from tympan.audio.activity import SilenceMeter
from tympan.engine.batching.scheduler import REPLAY_FRAMES
from tympan.engine.batching.stall_guard import LEAD_FRAMES, PATIENCE_FRAMES, StallGuard
from tympan.messages import Samples

LIMIT = 25  # frames of speech without a word
SECONDS = LIMIT * 0.08
PAUSING, EXPECTING = (0.9,) * 4, (0.1,) * 4

Restart = tuple[int, int]
"""The frame at which a model is started again, and the one it starts from."""


def watch(guard: StallGuard, sounds: str, pauses: Sequence[float] = PAUSING) -> list[Restart]:
    """Run frames from 0 on: `s` is speech, ` ` is silence, `w` is speech with a word."""
    restarts, silent = [], 0
    for number, sound in enumerate(sounds):
        silent = silent + 1 if sound == " " else 0
        if sound == "w":
            guard.on_text(number)
        start = guard.on_audio(number, silent, pauses)
        if start is not None:
            restarts.append((number, start))
            guard.on_restart()
    return restarts


def guard() -> StallGuard:
    return StallGuard(SECONDS, COUNTING_INFO)


def test_silence_and_words_are_no_stall() -> None:
    assert watch(guard(), " " * 1000) == []
    assert watch(guard(), "ssss ssw " * 200) == []


def test_restart_waits_for_pause() -> None:
    assert watch(guard(), "s" * (LIMIT + 5) + "  ") == [(LIMIT + 6, LIMIT + 5)]
    assert watch(guard(), "s" * 200)[0] == (LIMIT - 1 + PATIENCE_FRAMES, 1), "from frame 0 it would stall again"


def test_word_resets_count() -> None:
    assert watch(guard(), ("s" * (LIMIT + 5) + "w") * 20) == []


def test_silence_does_not_change_count() -> None:
    """Short answers with long silences in between, as by the caller of a voice agent."""
    sounds = ("s" * 5 + " " * 60) * 10
    assert next(number for number, _ in watch(guard(), sounds)) == 4 * 65 + 4 + 2


def test_limit_doubles_without_word() -> None:
    sounds = ("s" * 9 + "  ") * 600
    speech = [number * 9 / 11 for number, _ in watch(guard(), sounds)]
    assert len(speech) == int(math.log2(len(sounds) * 9 / 11 / LIMIT + 1))
    gaps = [later - earlier for earlier, later in zip([0, *speech], speech, strict=False)]
    for times, gap in enumerate(gaps):
        assert gap == pytest.approx(LIMIT * 2**times, abs=10)


def test_word_resets_limit() -> None:
    quiet = "s" * LIMIT + "  "
    restarts = watch(guard(), quiet + "w" + quiet + "w" + quiet)
    assert len(restarts) == 3


def test_low_pause_probability_counts_twice() -> None:
    sounds = "s" * 200
    (first, _), *_ = watch(guard(), sounds, EXPECTING)
    assert first == math.ceil(LIMIT / 2) - 1 + PATIENCE_FRAMES
    by_energy = StallGuard(SECONDS, replace(COUNTING_INFO, turns_from="energy"))
    assert watch(by_energy, sounds, EXPECTING) == watch(guard(), sounds, PAUSING), "by energy they do not count"


def test_restart_in_last_pause_before_speech() -> None:
    delay = 6
    sounds = " " * 20 + "s" * 10 + "    " + "s" * 12 + "w" + "  " + "s" * LIMIT + "  "
    ((_, start),) = watch(guard(), sounds)
    assert start == 30, "the word at 46 was said at 40, after this pause"
    sounds = " " * 20 + "w" * 10 + "s" * delay + "   " + "s" * LIMIT + "  "
    ((_, start),) = watch(guard(), sounds)
    assert start == 20 - LEAD_FRAMES, "there is a later pause, but after the last word"


def test_restart_in_first_pause_of_speech() -> None:
    ((_, start),) = watch(guard(), "s" * 10 + "  " + "s" * 5 + "  " + "s" * 10 + "  ")
    assert start == 10


@given(st.lists(st.sampled_from(["s", "s", " ", "  ", "sssss", "w"]), max_size=400), st.booleans())
def test_restart_is_within_kept_frames(parts: list[str], expecting: bool) -> None:
    for number, start in watch(guard(), "".join(parts), EXPECTING if expecting else PAUSING):
        assert max(1, number + 1 - REPLAY_FRAMES) <= start <= number


def restarts_of(samples: Samples, seconds: float = 8.0) -> list[Restart]:
    """Return the restarts of a model that never finds a word in the samples."""
    guard, meter, found = StallGuard(seconds, COUNTING_INFO), SilenceMeter(0.08), []
    frames = samples[: len(samples) // 1920 * 1920].reshape(-1, 1920)
    for number, level in enumerate(np.sqrt(np.square(frames).mean(axis=1))):
        start = guard.on_audio(number, meter.push(float(level)), PAUSING)
        if start is not None:
            found.append((number, start))
            guard.on_restart()
    return found


@pytest.mark.parametrize("name", ["counting", "quick_brown_fox", "hello_world"])
def test_real_speech_is_detected(name: str) -> None:
    (number, start), *_ = restarts_of(np.resize(clip(name).at(24_000), 30 * 24_000))
    assert 8 <= number * 0.08 <= 14
    assert number - start >= 100, "most of it is replayed"


def test_noise_and_beats() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal(600 * 24_000).astype(np.float32)
    assert restarts_of(0.05 * noise) == []
    beat = np.exp(-6 * (2 * np.arange(len(noise)) / 24_000 % 1)).astype(np.float32)
    assert len(restarts_of(0.3 * beat * noise)) == 5, "in ten minutes"

"""Finished streams whose speech gave no word run again with a temperature, and give the words that they then have."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.counting import COUNTING_INFO, CountingRunner, counting_token
from support.harness import run_rows, tiny_runner, voice
from support.listener import Listener
from support.recorded import EagerDevice
from support.token_streams import TokenStream

from tympan.engine.base import EngineStream, StepReport
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import KEPT_FRAMES, REPLAY_FRAMES, Row, Scheduler, Slot
from tympan.engine.batching.step import StepResult, scheduler_for
from tympan.engine.batching.stream import LEAST_SPEECH_FRAMES
from tympan.messages import Complete, Finished, Flushed, Partial, Progress, Samples, Segment, Warning, Word
from tympan.models.sampling import RETRY_SEED
from tympan.session.local import transcribe as transcribe_file
from tympan.transcript.tokenizer import SyntheticTokenizer
from tympan.transcript.words import PADDING

SPEECH = np.full(COUNTING_INFO.frame_samples, 0.1, np.float32)
PAUSE = np.zeros(COUNTING_INFO.frame_samples, np.float32)
TALK = [PAUSE] * 5 + [SPEECH] * 20
SLOT = 1


def is_retry(row: Row) -> bool:
    return row.slot.replay_reason == "retry"


class SilentRunner(CountingRunner):
    """Gives no text until the stream runs again, and then a word every four frames."""

    def launch(self, rows: Sequence[Row]) -> StepResult:
        counted = super().launch(rows)
        tokens = [token if is_retry(row) else PADDING for row, token in zip(rows, counted.tokens, strict=True)]
        return replace(counted, tokens=tokens)


async def transcribe(
    talk: Sequence[Samples | int], *, live: bool = False, stall_seconds: float = 8.0, silent: bool = True
) -> tuple[Listener, list[StepReport]]:
    """Return the events of a stream of frames and flushes, and the reports of all steps."""
    engine = BatchedEngine(SilentRunner if silent else CountingRunner, stall_seconds=stall_seconds)
    await engine.start()
    reports: list[StepReport] = []
    engine.observe = reports.append
    listener = Listener()
    stream = engine.open(listener, live=live)
    for item in talk:
        if isinstance(item, int):
            stream.flush(item)
        else:
            stream.push(item)
    stream.finish()
    await listener.wait_for_end()
    await engine.stop()
    return listener, reports


@pytest.mark.parametrize("live", [False, True])
async def test_words_of_retry_are_those_of_model_that_speaks(live: bool, caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = await transcribe(TALK, silent=False)
    with caplog.at_level(logging.WARNING):
        found, reports = await transcribe(TALK, live=live)
    assert found.words
    assert found.words[: len(expected.words)] == expected.words
    (warning,) = found.of(Warning)
    assert isinstance(warning, Warning)
    assert warning.code == "retried"
    assert (sum(each.retries for each in reports), sum(each.stalls for each in reports)) == (1, 0)
    assert len(found.of(Progress)) == len(TALK)
    assert isinstance(found.events[-1], Finished)
    (record,) = [record for record in caplog.records if record.name.startswith("tympan.engine")]
    assert "speech without any word" in record.message
    assert "2.0 s" in record.message


LONG = [*TALK, *[PAUSE] * (REPLAY_FRAMES - 4 - len(TALK))] + [SPEECH] * 5


@pytest.mark.parametrize(
    ("talk", "live", "stall_seconds"),
    [
        pytest.param([PAUSE] * 100, False, 8.0, id="silence"),
        pytest.param([PAUSE] * 20 + [SPEECH] * (LEAST_SPEECH_FRAMES - 1) + [PAUSE] * 9, False, 8.0, id="click"),
        pytest.param(LONG, True, 8.0, id="long live stream"),
        pytest.param([*TALK, 1], True, 8.0, id="answered flush at the end"),
        pytest.param([*TALK, 1, *TALK], True, 8.0, id="answered flush before"),
        pytest.param(TALK, False, 0.0, id="guards off"),
    ],
)
async def test_other_streams_end_at_once(talk: list[Samples | int], live: bool, stall_seconds: float) -> None:
    listener, reports = await transcribe(talk, live=live, stall_seconds=stall_seconds)
    assert not listener.of(Warning, Word, Partial)
    assert not any(each.retries for each in reports)


async def test_long_file_runs_again() -> None:
    listener, reports = await transcribe(LONG)
    assert listener.words
    assert sum(each.retries for each in reports) == 1


async def test_file_of_a_command_runs_again() -> None:
    engine = BatchedEngine(SilentRunner, stall_seconds=8.0)
    await engine.start()
    events = [event async for event in transcribe_file(engine, [np.concatenate(LONG)])]
    await engine.stop()
    words = [event for event in events if isinstance(event, Word)]
    (segment, *_) = [event for event in events if isinstance(event, Segment)]
    assert segment.text.startswith(words[0].text)
    assert isinstance(events[-1], Complete)
    assert events[-1].words == len(words) > 0


async def test_stream_with_words_does_not_run_again() -> None:
    listener, reports = await transcribe(TALK, silent=False)
    assert listener.words
    assert not listener.of(Warning)
    assert not any(each.retries for each in reports)


def send_talk(stream: EngineStream) -> None:
    """Send all of `TALK` and end the stream."""
    for frame in TALK:
        stream.push(frame)
    stream.finish()


async def test_stream_runs_again_once() -> None:
    """A model that gives no word in the second run, either, ends the stream."""
    engine = BatchedEngine(MuteRunner, stall_seconds=8.0)
    await engine.start()
    listener = Listener()
    stream = engine.open(listener, live=False)
    send_talk(stream)
    await listener.wait_for_end()
    await engine.stop()
    assert len(listener.of(Warning)) == 1
    assert not listener.words


class MuteRunner(CountingRunner):
    """Never gives text."""

    def launch(self, rows: Sequence[Row]) -> StepResult:
        return replace(super().launch(rows), tokens=[PADDING] * len(rows))


async def test_close_during_retry_frees_the_slot() -> None:
    engine = BatchedEngine(lambda: SilentRunner(slots=1), stall_seconds=8.0)
    await engine.start()
    listener, after = Listener(), Listener()
    stream = engine.open(listener, live=False)
    send_talk(stream)
    await listener.wait_for(Warning)
    stream.close()
    stream = engine.open(after, live=False)
    send_talk(stream)
    await after.wait_for_end()
    await engine.stop()
    expected, _ = await transcribe(TALK)
    assert after.words == expected.words
    assert engine.active == 0


@settings(deadline=None)
@given(
    asynchronous=st.booleans(),
    prefix_seconds=st.sampled_from([0.0, 1.0]),
    frames=st.integers(LEAST_SPEECH_FRAMES + 1, 60),
)
def test_times_of_retry_are_those_of_first_run(asynchronous: bool, prefix_seconds: float, frames: int) -> None:
    """With and without silence before the stream, on a device that answers late, for every length."""
    info = replace(COUNTING_INFO, silence_prefix_seconds=prefix_seconds)

    def play(silent: bool) -> TokenStream:
        numbers = itertools.count()

        def next_token(row: Row) -> int:
            return PADDING if silent and not is_retry(row) else counting_token(next(numbers))

        stream = TokenStream(
            info,
            SyntheticTokenizer(200),
            next_token,
            asynchronous,
            level=lambda row: 0.0 if row.frame is None or row.number == stream_start else 0.1,
            pauses=lambda row: (0.9,) * len(info.pause_horizons),
            settings={"stall_seconds": 60.0},
        )
        stream.push(frames)
        stream.finish()
        stream.run()
        return stream

    stream_start = round(prefix_seconds / 0.08 + 0.49)
    expected, found = play(silent=False), play(silent=True)
    words = [event for event in expected.events if isinstance(event, Word)]
    assert [event for event in found.events if isinstance(event, Word)] == words
    assert [event for event in found.events if isinstance(event, Finished)] == [Finished()]
    if words:
        assert any(isinstance(event, Warning) for event in found.events)


def test_frames_that_are_not_kept_do_not_run_again() -> None:
    for frames, again in ((KEPT_FRAMES - 16, KEPT_FRAMES - 16), (KEPT_FRAMES - 15, 0)):
        scheduler = Scheduler(3, 4)
        slot = Slot(0, None, live=False)
        for _ in range(frames):
            scheduler.push(slot, 0.0, PAUSE)
        scheduler.add_marker(slot, Finished())
        while not slot.awaits_result:
            scheduler.next_batch()
        assert scheduler.retry(slot) == again


class Retried:
    """One slot of a runner whose other slots always have frames; its tokens, and those of the others."""

    def __init__(self, recorded: bool) -> None:
        self.runner = tiny_runner(3, EagerDevice() if recorded else None)
        self.scheduler = scheduler_for(self.runner)

    def run(self, frames: int, *, retry: bool, neighbours: int, voice_of_stream: int = 5) -> dict[int, list[int]]:
        """Return the tokens of a stream that ends after `frames`, and of others that run beside it."""
        slots = [Slot(index, None, live=False) for index in (SLOT, 0, 2)[: 1 + neighbours]]
        tokens: dict[int, list[int]] = {slot.index: [] for slot in slots}
        for slot in slots:
            for frame in np.resize(voice(voice_of_stream + slot.index - SLOT), frames * 1920).reshape(frames, 1920):
                self.scheduler.push(slot, 0.0, frame)
            self.scheduler.add_marker(slot, Finished())
        while not self.scheduler.idle:
            batch = self.scheduler.next_batch()
            result = run_rows(self.runner, batch.rows)
            for row, token in zip(batch.rows, result.tokens, strict=True):
                tokens[row.slot.index].append(token)
                if row.marker is not None:
                    again = retry and row.slot is slots[0] and row.slot.replay_reason != "retry"
                    assert again is False or self.scheduler.retry(row.slot) == frames
                    self.scheduler.end_flush(row.slot, 0)
        return tokens


def sampled_tokens(runner_of: Retried, frames: int) -> list[int]:
    """Return the tokens of a new language model with the seed of retries on the codes of the same audio."""
    model, rows = runner_of.runner.program.model, torch.zeros(1, dtype=torch.int64)
    codec, state = model.mimi.init_state(1), model.lm.init_state(1, cache_dtype=model.cache_dtype)
    state.seed.fill_(RETRY_SEED)
    audio = np.resize(voice(5), frames * 1920).reshape(frames, 1920)
    codes = [model.mimi.encode(torch.from_numpy(frame)[None], codec, rows) for frame in audio]
    return [int(model.lm.step(each, state, rows).token) for each in codes]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recorded", [False, True])
def test_retry_of_model_is_seeded_and_leaves_others_alone(recorded: bool) -> None:
    """Past 12 s, so that the codes of the whole stream must have been kept."""
    frames = REPLAY_FRAMES + 20
    streams = Retried(recorded)
    expected = streams.run(frames, retry=False, neighbours=2)
    found = streams.run(frames, retry=True, neighbours=2)
    first = len(expected[SLOT])
    assert found[SLOT][:first] == expected[SLOT], "the first run is greedy"
    assert (found[0], found[2]) == (expected[0], expected[2]), "the streams beside it are greedy"
    assert found[SLOT][first : first + frames] == sampled_tokens(streams, frames)
    assert found[SLOT][first : first + frames] != expected[SLOT][:frames]

    alone = streams.run(frames, retry=True, neighbours=0)
    assert alone[SLOT] == found[SLOT], "a retry gives the same tokens in any batch and at any time"
    assert streams.run(frames, retry=False, neighbours=0)[SLOT] == expected[SLOT], "the next stream is greedy"


async def test_flush_of_live_stream_is_not_delayed() -> None:
    """Only the end of a stream can run it again."""
    listener, _ = await transcribe([*TALK, 1], live=True)
    markers = listener.of(Flushed, Finished)
    assert markers == [Flushed(1), Finished()]

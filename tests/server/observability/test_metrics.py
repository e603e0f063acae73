"""Metrics of the engine's steps."""

from __future__ import annotations

import re

import httpx2 as httpx
from support.server import LiveServer
from websockets.sync.client import connect

from tympan.config import ModelSettings
from tympan.engine.base import StepReport
from tympan.engine.batching.scheduler import FINAL_FRAMES, MOST_EXTRA_FRAMES
from tympan.engine.registry import create_engine
from tympan.server.observability.metrics import STEP_BUCKETS, Metrics


async def test_step_metrics() -> None:
    engine = create_engine(ModelSettings(model="scripted"))
    await engine.start()
    metrics = Metrics(engine)
    assert engine.observe is not None
    stream = engine.open(lambda events: None)
    engine.observe(StepReport(seconds=0.035, rows=7, waiting_frames=3, lag_seconds=0.05))
    engine.observe(StepReport(seconds=0.09, rows=7, waiting_frames=12, lag_seconds=0.25, backlog_lag_seconds=3.5))
    text = metrics.render().decode()
    assert 'tympan_step_seconds_bucket{le="0.08"} 1.0' in text, "a bucket ends at the duration of a frame"
    assert "tympan_step_seconds_count 2.0" in text
    assert "tympan_backlog_frames 12.0" in text
    assert 'tympan_engine_lag_seconds{work="live"} 0.25' in text
    assert 'tympan_engine_lag_seconds{work="backlog"} 3.5' in text
    assert 0.08 in STEP_BUCKETS
    stream.close()
    text = metrics.render().decode()
    assert "tympan_backlog_frames 0.0" in text, "an idle engine reports no step"
    assert 'tympan_engine_lag_seconds{work="live"} 0.0' in text
    await engine.stop()


def test_every_step_is_observed() -> None:
    with LiveServer(model="random:tiny", device="cpu", dtype="f32", max_streams=1) as server:
        with connect(server.url()) as socket:
            socket.send(bytes(3840 * 25))
            socket.send("EOS")
            list(socket)
        text = httpx.get(server.http("/metrics")).text
    (steps,) = re.findall(r"^tympan_step_seconds_count (\S+)$", text, re.MULTILINE)
    least = 25 + 7 + FINAL_FRAMES  # frames and silence
    assert least <= float(steps) <= least + MOST_EXTRA_FRAMES
    assert "tympan_backlog_frames 0.0" in text


async def test_restarts_are_counted_by_reason() -> None:
    engine = create_engine(ModelSettings(model="scripted"))
    await engine.start()
    metrics = Metrics(engine)
    assert engine.observe is not None
    engine.observe(
        StepReport(seconds=0.01, rows=3, waiting_frames=0, lag_seconds=0.0, stalls=1, repetitions=2, retries=3)
    )
    text = metrics.render().decode()
    assert "tympan_stalls_total 1.0" in text
    assert "tympan_repetitions_total 2.0" in text
    assert "tympan_retries_total 3.0" in text
    await engine.stop()

"""Every Prometheus metric of the server, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tympan.engine.base import Engine, StepReport

STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.12, 0.16, 0.32)
LAG_BUCKETS = (0.08, 0.16, 0.24, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)


class Metrics:
    """Counted by connections; the gauges ask the engine when they are read."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, engine: Engine) -> None:
        registry = self._registry = CollectorRegistry()
        capacity = Gauge("tympan_capacity_streams", "Streams that the engine carries at once", registry=registry)
        capacity.set_function(lambda: engine.capacity)
        active = Gauge("tympan_active_streams", "Streams that the engine carries now", registry=registry)
        active.set_function(lambda: engine.active)
        self._step = Histogram(
            "tympan_step_seconds",
            "Time of one step of the engine, of the 0.08 s that a frame lasts",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self._backlog = Gauge(
            "tympan_backlog_frames", "Frames that the engine has not run yet, of all streams", registry=registry
        )
        self._engine_lag = Gauge(
            "tympan_engine_lag_seconds", "Age of the oldest live frame of the last step", registry=registry
        )
        engine.observe = self.observe_step
        self.sessions = Counter(
            "tympan_sessions_total",
            "Sessions ended, by protocol and close code",
            ["protocol", "code"],
            registry=registry,
        )
        self.refused = Counter(
            "tympan_refused_total", "Connections refused before the upgrade, by reason", ["reason"], registry=registry
        )
        self.audio_seconds = Counter("tympan_audio_seconds_total", "Seconds of audio received", registry=registry)
        self.words = Counter("tympan_words_total", "Words released", registry=registry)
        self.dropped = Counter(
            "tympan_dropped_messages_total", "Messages that slow readers did without", registry=registry
        )
        self.lag = Histogram(
            "tympan_lag_seconds",
            "Audio received but not yet transcribed, once per second of audio and stream",
            buckets=LAG_BUCKETS,
            registry=registry,
        )

    def observe_step(self, step: StepReport) -> None:
        """Runs on the loop, once per step of the engine."""
        self._step.observe(step.seconds)
        self._backlog.set(step.waiting_frames)
        self._engine_lag.set(step.lag_seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)

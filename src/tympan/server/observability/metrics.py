"""The server's Prometheus metrics, in a registry of their own.

The metrics whose names begin with `asr_` have the names and buckets of Kyutai's moshi-server, for existing dashboards;
they cover the streams of all protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tympan.audio.budget import ByteBudget
from tympan.engine.base import Engine, StepReport
from tympan.server.access.quota import Account

ASR_STEP_BUCKETS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)
CONNECTION_STEPS_BUCKETS = (2, 25, 125, 250, 500, 750, 1125, 1500, 2250, 3000, 4500)
STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.12, 0.16, 0.32)
LAG_BUCKETS = (0.08, 0.16, 0.24, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)

_NO_STEP = StepReport(seconds=0.0, rows=0, waiting_frames=0, lag_seconds=0.0)


class SocketCount(Protocol):
    """Counts open sockets; `most` is the limit."""

    most: int

    @property
    def open(self) -> int:
        """Number of open sockets."""


class StepMetrics:
    """Metrics of the engine's steps: duration, backlog, lag and faults of the model."""

    def __init__(self, registry: CollectorRegistry, engine: Engine) -> None:
        self._engine = engine
        self._step = Histogram(
            "tympan_step_seconds",
            "Duration of an engine step; a frame lasts 0.08 s",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self._asr_step = Histogram(
            "asr_model_step_duration",
            "Duration of a model step in seconds",
            buckets=ASR_STEP_BUCKETS,
            registry=registry,
        )
        self._last = _NO_STEP
        backlog = Gauge(
            "tympan_backlog_frames", "Frames of all streams that the engine has not processed", registry=registry
        )
        backlog.set_function(lambda: self._current.waiting_frames)
        lag = Gauge(
            "tympan_engine_lag_seconds",
            "Age of the oldest frame in the last step, run or waiting: work=live, or backlog (files, streams behind)",
            ["work"],
            registry=registry,
        )
        lag.labels(work="live").set_function(lambda: self._current.lag_seconds)
        lag.labels(work="backlog").set_function(lambda: self._current.backlog_lag_seconds)
        self._stalls = Counter(
            "tympan_stalls_total", "Resets of a stream's model state after speech without output", registry=registry
        )
        self._repetitions = Counter(
            "tympan_repetitions_total",
            "Resets of a stream's model state after text that repeated itself",
            registry=registry,
        )
        self._retries = Counter(
            "tympan_retries_total",
            "Finished streams that ran again because their speech gave no word",
            registry=registry,
        )
        self._invalid = Counter(
            "tympan_invalid_outputs_total",
            "Streams that ended because the model's output was not a number",
            registry=registry,
        )

    @property
    def _current(self) -> StepReport:
        """The last step, or an empty one if no stream is open: an idle engine reports no step."""
        return self._last if self._engine.active else _NO_STEP

    def observe(self, step: StepReport) -> None:
        """Record one step of the engine; called on the event loop."""
        self._step.observe(step.seconds)
        self._asr_step.observe(step.seconds)
        self._last = step
        if step.stalls:
            self._stalls.inc(step.stalls)
        if step.repetitions:
            self._repetitions.inc(step.repetitions)
        if step.retries:
            self._retries.inc(step.retries)
        if step.invalid:
            self._invalid.inc(step.invalid)


class Metrics:
    """All metrics of one server. Gauges read the engine when they are scraped."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, engine: Engine) -> None:
        registry = self._registry = CollectorRegistry()
        self._engine = engine
        engine.observe = StepMetrics(registry, engine).observe
        self._gauge("tympan_capacity_streams", "Streams that the engine can process at once", lambda: engine.capacity)
        self._gauge("tympan_active_streams", "Streams open in the engine", lambda: engine.active)
        registry.register(_MovedStreams(engine))
        self.sessions = Counter(
            "tympan_sessions_total",
            "Ended sessions by protocol and close code",
            ["protocol", "code"],
            registry=registry,
        )
        self.resumed = Counter("tympan_resumed_total", "Streams resumed on a new connection", registry=registry)
        self.evicted = Counter(
            "tympan_evicted_total",
            "Streams whose connection was lost and that made room for new ones",
            registry=registry,
        )
        self.refused = Counter(
            "tympan_refused_total", "Refused connections and requests by reason", ["reason"], registry=registry
        )
        self.audio_seconds = Counter("tympan_audio_seconds_total", "Seconds of audio received", registry=registry)
        self.words = Counter("tympan_words_total", "Final words", registry=registry)
        self.dropped = Counter(
            "tympan_dropped_messages_total", "Messages dropped because the client reads too slowly", registry=registry
        )
        self.recordings = Counter(
            "tympan_recordings_total",
            "Recordings by outcome: complete, incomplete, skipped (not possible), declined (by the client)",
            ["outcome"],
            registry=registry,
        )
        self.lag = Histogram(
            "tympan_lag_seconds",
            "Audio received but not yet transcribed, observed once per second of each stream's audio",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._connections = 0
        open_channels = Gauge("asr_open_channels", "Streams open in the engine", ["handler"], registry=registry)
        open_channels.labels(handler="all").set_function(lambda: engine.active)
        self._connection_steps = Histogram(
            "asr_connection_num_steps",
            "Frames of audio per stream, observed at its end",
            buckets=CONNECTION_STEPS_BUCKETS,
            registry=registry,
        )

    def show_keys(self, accounts: Callable[[], Iterable[Account]]) -> None:
        """Export the usage of the keys that have names."""
        self._registry.register(_KeyCollector(accounts))

    def show_sockets(self, sockets: SocketCount) -> None:
        """Export how many sockets are open."""
        self._gauge("tympan_connections", "Open connections, HTTP and WebSocket", lambda: sockets.open)
        self._gauge("tympan_connections_limit", "Most open connections", lambda: sockets.most)

    def show_budgets(self, budgets: Mapping[str, ByteBudget], lost: Callable[[], int]) -> None:
        """Export what waits in this process: bytes, and streams whose connection was lost."""
        waiting = Gauge(
            "tympan_waiting_bytes",
            "Bytes received and not usable yet: buffered (bodies of requests), undecoded (containers without audio), "
            "backlog (messages of streams for which the engine has no room)",
            ["kind"],
            registry=self._registry,
        )
        for kind, budget in budgets.items():
            waiting.labels(kind=kind).set_function(partial(getattr, budget, "used"))
        self._gauge("tympan_lost_streams", "Streams whose connection was lost and that a client can resume", lost)

    def _gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        Gauge(name, help, registry=self._registry).set_function(value)

    def connected(self) -> None:
        """Count an opened WebSocket."""
        self._connections += 1

    def connection_ended(self, audio_seconds: float) -> None:
        """Record the length of a stream that ended."""
        self._connection_steps.observe(round(audio_seconds / self._engine.info.frame_seconds))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry) + self._render_connections()

    def _render_connections(self) -> bytes:
        # prometheus_client would name the counter asr_connect_total.
        name = "asr_connect"
        help_and_type = f"# HELP {name} WebSockets opened\n# TYPE {name} counter\n"
        return f'{help_and_type}{name}{{handler="all"}} {self._connections}\n'.encode()


class _MovedStreams(Collector):
    """How often a stream has continued in another engine process; the engine counts it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        text = "Streams that have continued in another engine process after theirs was lost"
        yield CounterMetricFamily("tympan_moved_streams", text, value=self._engine.moved_streams)


class _KeyCollector(Collector):
    """Usage of the named keys; keys with the same name are summed."""

    def __init__(self, accounts: Callable[[], Iterable[Account]]) -> None:
        self._accounts = accounts

    def collect(self) -> Iterator[Metric]:
        streams = GaugeMetricFamily("tympan_key_streams", "Streams open by named key", labels=["key"])
        seconds = CounterMetricFamily(
            "tympan_key_audio_seconds", "Seconds of audio of all channels received by named key", labels=["key"]
        )
        by_name: dict[str, list[Account]] = {}
        for account in self._accounts():
            if account.name:
                by_name.setdefault(account.name, []).append(account)
        for name, accounts in by_name.items():
            streams.add_metric([name], sum(account.streams for account in accounts))
            seconds.add_metric([name], sum(account.audio_seconds for account in accounts))
        yield streams
        yield seconds

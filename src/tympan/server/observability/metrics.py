"""Every Prometheus metric of the server, in a registry of its own.

The four that begin with `asr_` have the names and buckets of Kyutai's moshi-server, for the dashboards that know those;
they count the streams of every protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tympan.engine.base import Engine, StepReport
from tympan.server.access.quota import Account

ASR_STEP_BUCKETS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)
CONNECTION_STEPS_BUCKETS = (2, 25, 125, 250, 500, 750, 1125, 1500, 2250, 3000, 4500)
STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.12, 0.16, 0.32)
LAG_BUCKETS = (0.08, 0.16, 0.24, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)


class StepMetrics:
    """What the engine's steps tell: how long they take, what waits for them, whom the model left in the lurch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._step = Histogram(
            "tympan_step_seconds",
            "Time of one step of the engine, of the 0.08 s that a frame lasts",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self._asr_step = Histogram(
            "asr_model_step_duration",
            "Seconds that a step of the model took",
            buckets=ASR_STEP_BUCKETS,
            registry=registry,
        )
        self._backlog = Gauge(
            "tympan_backlog_frames", "Frames that the engine has not run yet, of all streams", registry=registry
        )
        self._lag = Gauge(
            "tympan_engine_lag_seconds", "Age of the oldest live frame of the last step", registry=registry
        )
        self._stalls = Counter(
            "tympan_stalls_total",
            "Times that a stream's model was started again after speech without a word",
            registry=registry,
        )
        self._invalid = Counter(
            "tympan_invalid_outputs_total",
            "Streams that ended because the model's output was not a number",
            registry=registry,
        )

    def observe(self, step: StepReport) -> None:
        """Runs on the loop, once per step of the engine."""
        self._step.observe(step.seconds)
        self._asr_step.observe(step.seconds)
        self._backlog.set(step.waiting_frames)
        self._lag.set(step.lag_seconds)
        if step.stalls:
            self._stalls.inc(step.stalls)
        if step.invalid:
            self._invalid.inc(step.invalid)


class Metrics:
    """Counted by connections; the gauges ask the engine when they are read."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, engine: Engine) -> None:
        registry = self._registry = CollectorRegistry()
        capacity = Gauge("tympan_capacity_streams", "Streams that the engine carries at once", registry=registry)
        capacity.set_function(lambda: engine.capacity)
        active = Gauge("tympan_active_streams", "Streams that the engine carries now", registry=registry)
        active.set_function(lambda: engine.active)
        engine.observe = StepMetrics(registry).observe
        self.sessions = Counter(
            "tympan_sessions_total",
            "Sessions ended, by protocol and close code",
            ["protocol", "code"],
            registry=registry,
        )
        self.resumed = Counter(
            "tympan_resumed_total", "Times that a client came back to its stream on a new connection", registry=registry
        )
        self.refused = Counter(
            "tympan_refused_total", "Connections and requests refused, by reason", ["reason"], registry=registry
        )
        self.audio_seconds = Counter("tympan_audio_seconds_total", "Seconds of audio received", registry=registry)
        self.words = Counter("tympan_words_total", "Words released", registry=registry)
        self.dropped = Counter(
            "tympan_dropped_messages_total", "Messages that slow readers did without", registry=registry
        )
        self.recordings = Counter(
            "tympan_recordings_total",
            "Recordings where they are switched on: complete, incomplete, skipped (none could be made), declined",
            ["outcome"],
            registry=registry,
        )
        self.lag = Histogram(
            "tympan_lag_seconds",
            "Audio received but not yet transcribed, once per second of audio and stream",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._engine = engine
        self._connections = 0
        self._make_moshi_servers(registry)

    def _make_moshi_servers(self, registry: CollectorRegistry) -> None:
        engine = self._engine
        open_channels = Gauge("asr_open_channels", "Streams open now", ["handler"], registry=registry)
        open_channels.labels(handler="all").set_function(lambda: engine.active)
        self._connection_steps = Histogram(
            "asr_connection_num_steps",
            "Frames of audio of a stream, counted at its end",
            buckets=CONNECTION_STEPS_BUCKETS,
            registry=registry,
        )

    def show_keys(self, accounts: Callable[[], Iterable[Account]]) -> None:
        """Let the keys that have names be seen: as many as the operator has named, and nothing else of them."""
        self._registry.register(_Keys(accounts))

    def connected(self) -> None:
        """A WebSocket was opened."""
        self._connections += 1

    def connection_ended(self, audio_seconds: float) -> None:
        """A stream ended, after so much audio."""
        self._connection_steps.observe(round(audio_seconds / self._engine.info.frame_seconds))

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry) + self._render_connections()

    def _render_connections(self) -> bytes:
        """By hand: `prometheus_client` would have the counter be called `asr_connect_total`."""
        name = "asr_connect"
        help_and_type = f"# HELP {name} WebSockets opened\n# TYPE {name} counter\n"
        return f'{help_and_type}{name}{{handler="all"}} {self._connections}\n'.encode()


class _Keys(Collector):
    """What the named keys use. Keys of one name count together."""

    def __init__(self, accounts: Callable[[], Iterable[Account]]) -> None:
        self._accounts = accounts

    def collect(self) -> Iterator[Metric]:
        streams = GaugeMetricFamily("tympan_key_streams", "Streams that a named key has now", labels=["key"])
        seconds = CounterMetricFamily(
            "tympan_key_audio_seconds", "Seconds of audio of every channel that a named key has sent", labels=["key"]
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

"""The metrics of several processes in one text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tympan.server.observability.merged_metrics import MergedMetrics


class Process:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.words = Counter("tympan_words", "Final words", registry=self.registry)
        self.sessions = Counter("tympan_sessions", "Ended", ["code"], registry=self.registry)
        self.capacity = Gauge("tympan_capacity_streams", "Capacity", registry=self.registry)
        self.lost = Gauge("tympan_lost_streams", "Lost", registry=self.registry)
        self.lag = Histogram("tympan_lag_seconds", "Lag", buckets=(1.0, 2.0), registry=self.registry)

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()


def values(merged: MergedMetrics) -> dict[str, float]:
    """Parse the text as Prometheus does; each metric has one block of lines."""
    families = list(text_string_to_metric_families(merged.render().decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in families for sample in family.samples
    }


def test_sums() -> None:
    first, second, merged = Process(), Process(), MergedMetrics()
    for process, count in ((first, 2), (second, 3)):
        process.words.inc(count)
        process.capacity.set(8)
        process.lost.set(count)
        process.lag.observe(count - 1)
        process.sessions.labels(code=f"100{count}").inc()
    merged.update(1, first.text)
    merged.update(2, second.text)
    read = values(merged)
    assert read["tympan_words_total"] == 5
    assert read["tympan_lost_streams"] == 5
    assert read["tympan_capacity_streams"] == 8, "each process reports the capacity of all"
    assert read["tympan_lag_seconds_count"] == 2
    assert read["tympan_lag_seconds_bucket1.0"] == 1
    assert read["tympan_lag_seconds_bucket+Inf"] == 2
    assert read["tympan_sessions_total1002"] == read["tympan_sessions_total1003"] == 1


def test_counts_of_a_process_that_ended_remain() -> None:
    """A counter that falls would look like a restart of the server."""
    first, merged = Process(), MergedMetrics()
    first.words.inc(7)
    first.lost.set(3)
    first.lag.observe(0.5)
    merged.update(1, first.text)
    merged.end(1)
    assert values(merged)["tympan_words_total"] == 7
    again = Process()
    again.words.inc()
    merged.update(1, again.text)
    read = values(merged)
    assert read["tympan_words_total"] == 8
    assert read["tympan_lost_streams"] == 0
    assert read["tympan_lag_seconds_count"] == 1
    merged.end(1)
    merged.end(1)
    assert values(merged)["tympan_words_total"] == 8

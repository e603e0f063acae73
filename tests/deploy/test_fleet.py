"""The simulated fleet: streams are accounted for, containers are paid for, and small cases equal hand results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tympan.deploy.fleet import FleetResult, FleetRules, simulate
from tympan.deploy.workload import Workload, synthetic_day


def rules(**given: float) -> FleetRules:
    values = {
        "min_containers": 1,
        "buffer_containers": 0,
        "max_containers": 3,
        "container_target_streams": 2,
        "container_max_streams": 2,
        "scaledown_window": 60.0,
        "cold_start_seconds": 10.0,
        "patience_seconds": 0.0,
    }
    return FleetRules(**{**values, **given})  # type: ignore[arg-type]


def workload(*streams: tuple[float, float]) -> Workload:
    values = np.array(sorted(streams), dtype=np.float64)
    return Workload("by hand", values[:, 0], values[:, 1])


workloads = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 200)), min_size=1, max_size=60).map(
    lambda streams: workload(*streams)
)


@st.composite
def any_rules(draw: st.DrawFn) -> FleetRules:
    most = draw(st.integers(1, 6))
    maximum = draw(st.integers(1, 5))
    return FleetRules(
        min_containers=draw(st.integers(0, most)),
        buffer_containers=draw(st.integers(0, 2)),
        max_containers=most,
        container_target_streams=draw(st.integers(1, maximum)),
        container_max_streams=maximum,
        scaledown_window=draw(st.sampled_from((2.0, 30.0, 300.0))),
        cold_start_seconds=draw(st.sampled_from((0.0, 5.0, 60.0))),
        patience_seconds=draw(st.sampled_from((0.0, 3.0, 30.0))),
    )


@given(workloads, any_rules())
def test_streams_are_accounted_for_and_limits_hold(day: Workload, fleet: FleetRules) -> None:
    result = simulate(day, fleet)
    assert result.on_time + result.late + result.refused == result.arrivals == len(day.arrivals)
    assert result.peak_containers <= fleet.max_containers
    assert result.containers.min() >= fleet.min_containers
    assert np.all(result.open_streams <= result.containers * fleet.container_max_streams)
    assert result.longest_wait <= fleet.patience_seconds
    assert 0 <= result.utilisation <= 1 + 1e-9
    if fleet.patience_seconds == 0:
        assert result.late == 0


@given(workloads, any_rules())
def test_cost_is_the_area_under_the_containers(day: Workload, fleet: FleetRules) -> None:
    result = simulate(day, fleet)
    area = float(np.sum(result.containers[:-1] * np.diff(result.times)))
    before = fleet.min_containers * float(result.times[0])
    assert result.container_seconds == pytest.approx(area + before)
    served = float(np.sum(result.open_streams[:-1] * np.diff(result.times)))
    assert result.stream_seconds == pytest.approx(served)


@given(workloads, st.integers(1, 5), st.integers(1, 4))
def test_larger_fixed_fleet_never_refuses_more(day: Workload, containers: int, streams: int) -> None:
    def refused(count: int) -> int:
        fixed = rules(
            min_containers=count, max_containers=count, container_target_streams=streams, container_max_streams=streams
        )
        return simulate(day, fixed).refused

    assert refused(containers + 1) <= refused(containers)


@given(workloads)
def test_fleet_of_the_peak_refuses_no_stream(day: Workload) -> None:
    fixed = rules(min_containers=day.peak, max_containers=day.peak, container_target_streams=1, container_max_streams=1)
    result = simulate(day, fixed)
    assert (result.refused, result.late, result.peak_streams) == (0, 0, day.peak)


def summary(result: FleetResult) -> tuple[int, int, int]:
    return result.on_time, result.late, result.refused


def test_stream_without_room_is_refused_or_waits() -> None:
    three = workload((0, 100), (0, 100), (1, 100))
    assert summary(simulate(three, rules())) == (2, 0, 1)
    waited = simulate(three, rules(patience_seconds=20.0))
    assert summary(waited) == (2, 1, 0)
    assert waited.longest_wait == 10.0  # the container was requested at 1 and ready at 11
    assert waited.container_seconds == 111 + 110  # the second ran from 1 to the end of the third stream


def test_patience_shorter_than_the_cold_start() -> None:
    assert summary(simulate(workload((0, 100), (0, 100), (1, 100)), rules(patience_seconds=9.0))) == (2, 0, 1)


def test_container_stops_after_the_window() -> None:
    two = workload((0, 10), (0, 500), (0, 10), (20, 1000))
    result = simulate(
        two, rules(patience_seconds=20.0, cold_start_seconds=0.0, container_target_streams=1, container_max_streams=1)
    )
    assert result.peak_containers == 3
    # Containers 0 to 2 start at once; streams end at 10, 10 and 500, and the fourth takes one of two idle ones at 20.
    assert result.container_seconds == pytest.approx(1020 + 560 + 70)


def test_buffer_exists_only_while_a_stream_is_open() -> None:
    result = simulate(workload((100, 10), (1000, 10)), rules(buffer_containers=1))
    assert result.containers[np.searchsorted(result.times, 100, side="right") - 1] == 2
    assert result.containers[np.searchsorted(result.times, 999, side="right") - 1] == 1


def test_synthetic_day_depends_on_its_seed() -> None:
    first, again, other = synthetic_day(1000, 7), synthetic_day(1000, 7), synthetic_day(1000, 8)
    assert np.array_equal(first.arrivals, again.arrivals)
    assert np.array_equal(first.durations, again.durations)
    assert not np.array_equal(first.arrivals, other.arrivals)


def test_hundred_thousand_streams() -> None:
    day = synthetic_day(100_000)
    result = simulate(
        day, rules(max_containers=100, container_target_streams=200, container_max_streams=250, scaledown_window=300.0)
    )
    assert result.on_time + result.late + result.refused == 100_000

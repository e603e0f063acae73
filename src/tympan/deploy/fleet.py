"""A simulation of an autoscaled fleet, stream by stream.

The rules are those that Modal documents. The autoscaler wants as many containers as the streams need at their target,
plus the buffer while any stream is open, between the minimum and the maximum. A new container accepts streams after its
cold start and costs from the moment it is requested. A container without streams for the scale-down window stops if it
is not wanted; a container with open streams never stops. Modal does not document which container receives a stream; the
simulation chooses the fullest below its target, else the least full below its maximum. A stream that no container can
accept retries for `patience_seconds`: it is served late, or refused.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tympan.deploy.workload import Workload

STREAM_ENDS: Final = 0  # first of the events at the same moment
READY: Final = 1
IDLE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRules:
    """Rules of the autoscaler: numbers of containers, streams of one container, and seconds."""

    min_containers: int
    buffer_containers: int
    max_containers: int
    container_target_streams: int
    container_max_streams: int
    scaledown_window: float
    cold_start_seconds: float
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class FleetResult:
    """The result of a simulation.

    Attributes:
        arrivals: Number of streams, which are `on_time`, `late` or `refused`.
        longest_wait: Longest wait of a stream that was served, in seconds.
        container_seconds: Seconds of all containers, starting ones included.
        stream_seconds: Seconds of all streams that were served.
        utilisation: Stream-seconds per container-second and stream of a container's maximum.
        times: Moments of all changes in seconds, ascending, `[changes]`.
        open_streams: Open streams from each of `times` on, `[changes]`.
        containers: Containers from each of `times` on, `[changes]`.
    """

    arrivals: int
    on_time: int
    late: int
    refused: int
    longest_wait: float
    container_seconds: float
    stream_seconds: float
    utilisation: float
    peak_streams: int
    peak_containers: int
    times: NDArray[np.float64]
    open_streams: NDArray[np.int64]
    containers: NDArray[np.int64]


@dataclass(slots=True)
class _Container:
    started: float
    streams: int = 0
    ready: bool = False
    stopped: bool = False
    idle_periods: int = 0  # their number identifies the period to which a scale-down window belongs


def simulate(workload: Workload, rules: FleetRules) -> FleetResult:
    """Simulate until the last stream has ended; at time zero, `min_containers` containers are ready."""
    assert 1 <= rules.container_target_streams <= rules.container_max_streams
    assert 0 <= rules.min_containers <= rules.max_containers
    assert rules.max_containers > 0
    fleet = _Fleet(rules, workload.durations.tolist())
    for stream, now in enumerate(workload.arrivals.tolist()):
        fleet.run_until(now)
        fleet.arrive(stream, now)
    fleet.run_until(float("inf"))
    return fleet.result()


class _Fleet:
    def __init__(self, rules: FleetRules, durations: list[float]) -> None:
        self._rules = rules
        self._durations = durations
        self._events: list[tuple[float, int, int, int]] = []  # time, kind, container, idle period
        self._candidates: list[tuple[int, int, int]] = []  # preference, container, its streams at the time of entry
        self._fleet: list[_Container] = []
        self._alive = 0
        self._open = 0
        self._stoppable: deque[tuple[int, int]] = deque()  # containers idle for a window, with their idle periods
        self._waiting: deque[tuple[int, float]] = deque()  # streams and their arrivals
        self._on_time = self._late = self._refused = 0
        self._longest_wait = self._container_seconds = self._stream_seconds = 0.0
        self._history: list[tuple[float, int, int]] = []
        for _ in range(rules.min_containers):
            self._start(0.0, 0.0)
        self.run_until(0.0)

    def run_until(self, now: float) -> None:
        """Process the events up to ``now``; if it is infinite, up to the end of the last stream."""
        events = self._events
        while events and events[0][0] <= now:
            if now == float("inf") and not self._open and not self._waiting:
                break
            time, kind, index, period = heapq.heappop(events)
            container = self._fleet[index]
            if kind == STREAM_ENDS:
                container.streams -= 1
                self._open -= 1
                self._update_candidates(index, time)
            elif kind == READY:
                container.ready = True
                self._update_candidates(index, time)
            else:
                self._stoppable.append((index, period))
            self._update(time)

    def arrive(self, stream: int, now: float) -> None:
        self._waiting.append((stream, now))
        self._update(now)

    def _update(self, now: float) -> None:
        """Serve, scale and record after an event."""
        self._serve_waiting(now)
        self._scale(now)
        self._history.append((now, self._open, self._alive))

    def _serve_waiting(self, now: float) -> None:
        """Serve waiting streams in the order of their arrival; refuse those whose patience has ended."""
        waiting, patience = self._waiting, self._rules.patience_seconds
        while waiting:
            stream, since = waiting[0]
            if now - since > patience:
                self._refused += 1
            elif (index := self._find_container()) is not None:
                self._serve(stream, index, now, now - since)
            elif patience == 0:
                self._refused += 1
            else:
                return
            waiting.popleft()

    def _serve(self, stream: int, index: int, now: float, waited: float) -> None:
        container, duration = self._fleet[index], self._durations[stream]
        container.streams += 1
        self._open += 1
        self._stream_seconds += duration
        self._longest_wait = max(self._longest_wait, waited)
        if waited > 0:
            self._late += 1
        else:
            self._on_time += 1
        heapq.heappush(self._events, (now + duration, STREAM_ENDS, index, 0))
        self._update_candidates(index, now)

    def _update_candidates(self, index: int, now: float) -> None:
        """Add a container to the candidates for the next stream; its earlier entries become stale."""
        container, rules = self._fleet[index], self._rules
        streams = container.streams
        if streams < rules.container_max_streams:
            preference = -streams if streams < rules.container_target_streams else streams
            heapq.heappush(self._candidates, (preference, index, streams))
        if streams == 0:
            container.idle_periods += 1
            heapq.heappush(self._events, (now + rules.scaledown_window, IDLE, index, container.idle_periods))

    def _find_container(self) -> int | None:
        while self._candidates:
            _, index, streams = self._candidates[0]
            container = self._fleet[index]
            if container.streams == streams and not container.stopped:
                return index
            heapq.heappop(self._candidates)
        return None

    def _wanted(self) -> int:
        rules, streams = self._rules, self._open + len(self._waiting)
        busy = ceil(streams / rules.container_target_streams) + (rules.buffer_containers if streams else 0)
        return min(rules.max_containers, max(rules.min_containers, busy))

    def _scale(self, now: float) -> None:
        wanted = self._wanted()
        while self._alive < wanted:
            self._start(now, now + self._rules.cold_start_seconds)
        while self._stoppable and self._alive > wanted:
            index, period = self._stoppable.popleft()
            container = self._fleet[index]
            if container.streams == 0 and container.idle_periods == period and not container.stopped:
                container.stopped = True
                self._alive -= 1
                self._container_seconds += now - container.started

    def _start(self, now: float, ready_at: float) -> None:
        self._fleet.append(_Container(started=now))
        self._alive += 1
        heapq.heappush(self._events, (ready_at, READY, len(self._fleet) - 1, 0))

    def result(self) -> FleetResult:
        """Return the result of the whole simulation."""
        self._refused += len(self._waiting)
        ended = self._history[-1][0]
        running = sum(ended - container.started for container in self._fleet if not container.stopped)
        container_seconds = self._container_seconds + running
        slots = container_seconds * self._rules.container_max_streams
        times, streams, containers = (np.array(column) for column in zip(*self._history, strict=True))
        return FleetResult(
            arrivals=len(self._durations),
            on_time=self._on_time,
            late=self._late,
            refused=self._refused,
            longest_wait=self._longest_wait,
            container_seconds=container_seconds,
            stream_seconds=self._stream_seconds,
            utilisation=self._stream_seconds / slots if slots else 0.0,
            peak_streams=int(streams.max()),
            peak_containers=int(containers.max()),
            times=times,
            open_streams=streams,
            containers=containers,
        )

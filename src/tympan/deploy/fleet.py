"""An autoscaled fleet, simulated stream by stream.

The rules are those that Modal documents. Wanted are as many containers as bring the streams to their target, and the
buffer while any stream is open, within the least and the most. A new container takes streams after its cold start, and
costs from the moment it was asked for. One without streams for the scale-down window stops if it is not wanted; one
with open streams never does. Which container gets a stream is not documented: here the fullest below its target, then
any below its maximum. A stream that finds no room is tried again for `patience_seconds`: it is served late, or refused.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tympan.deploy.trace import Trace

LEAVES: Final = 0  # of events at the same moment, whoever leaves is first
READY: Final = 1
IDLE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRules:
    """Containers, streams of one container, and seconds."""

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
    """What became of a trace. `times` (seconds, ascending) with `open_streams` and `containers` from each on."""

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
    idle_spells: int = 0
    """Counts them, so that the end of a window of an earlier one is known as such."""


def simulate(trace: Trace, rules: FleetRules) -> FleetResult:
    """Run the trace until its last stream has ended. `min_containers` are ready at time zero."""
    assert 1 <= rules.container_target_streams <= rules.container_max_streams
    assert 0 <= rules.min_containers <= rules.max_containers
    assert rules.max_containers > 0
    fleet = _Fleet(rules, trace.durations.tolist())
    for stream, now in enumerate(trace.arrivals.tolist()):
        fleet.run_until(now)
        fleet.arrive(stream, now)
    fleet.run_until(float("inf"))
    return fleet.result()


class _Fleet:
    def __init__(self, rules: FleetRules, durations: list[float]) -> None:
        self._rules = rules
        self._durations = durations
        self._events: list[tuple[float, int, int, int]] = []  # when, what, which container, which idle spell
        self._room: list[tuple[int, int, int]] = []  # preference, container, its streams when this was written
        self._fleet: list[_Container] = []
        self._alive = 0
        self._open = 0
        self._ripe: deque[tuple[int, int]] = deque()  # containers that were idle for a window, and their spells
        self._waiting: deque[tuple[int, float]] = deque()  # streams, and when they came
        self._on_time = self._late = self._refused = 0
        self._longest_wait = self._container_seconds = self._stream_seconds = 0.0
        self._history: list[tuple[float, int, int]] = []
        for _ in range(rules.min_containers):
            self._start(0.0, 0.0)
        self.run_until(0.0)

    def run_until(self, now: float) -> None:
        """Everything that happens up to `now`; to the end of the last stream if that is infinite."""
        events = self._events
        while events and events[0][0] <= now:
            if now == float("inf") and not self._open and not self._waiting:
                break
            time, kind, index, spell = heapq.heappop(events)
            container = self._fleet[index]
            if kind == LEAVES:
                container.streams -= 1
                self._open -= 1
                self._server_info(index, time)
            elif kind == READY:
                container.ready = True
                self._server_info(index, time)
            else:
                self._ripe.append((index, spell))
            self._settle(time)

    def arrive(self, stream: int, now: float) -> None:
        self._waiting.append((stream, now))
        self._settle(now)

    def _settle(self, now: float) -> None:
        """What follows from anything that happened."""
        self._serve_waiting(now)
        self._scale(now)
        self._history.append((now, self._open, self._alive))

    def _serve_waiting(self, now: float) -> None:
        """First come, first served; whoever waited too long has gone."""
        waiting, patience = self._waiting, self._rules.patience_seconds
        while waiting:
            stream, since = waiting[0]
            if now - since > patience:
                self._refused += 1
            elif (index := self._find_room()) is not None:
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
        heapq.heappush(self._events, (now + duration, LEAVES, index, 0))
        self._server_info(index, now)

    def _server_info(self, index: int, now: float) -> None:
        """Note what room a container has; older notes about it are stale from here on."""
        container, rules = self._fleet[index], self._rules
        streams = container.streams
        if streams < rules.container_max_streams:
            preference = -streams if streams < rules.container_target_streams else streams
            heapq.heappush(self._room, (preference, index, streams))
        if streams == 0:
            container.idle_spells += 1
            heapq.heappush(self._events, (now + rules.scaledown_window, IDLE, index, container.idle_spells))

    def _find_room(self) -> int | None:
        while self._room:
            _, index, streams = self._room[0]
            container = self._fleet[index]
            if container.streams == streams and not container.stopped:
                return index
            heapq.heappop(self._room)
        return None

    def _wanted(self) -> int:
        rules, streams = self._rules, self._open + len(self._waiting)
        busy = ceil(streams / rules.container_target_streams) + (rules.buffer_containers if streams else 0)
        return min(rules.max_containers, max(rules.min_containers, busy))

    def _scale(self, now: float) -> None:
        wanted = self._wanted()
        while self._alive < wanted:
            self._start(now, now + self._rules.cold_start_seconds)
        while self._ripe and self._alive > wanted:
            index, spell = self._ripe.popleft()
            container = self._fleet[index]
            if container.streams == 0 and container.idle_spells == spell and not container.stopped:
                container.stopped = True
                self._alive -= 1
                self._container_seconds += now - container.started

    def _start(self, now: float, ready_at: float) -> None:
        self._fleet.append(_Container(started=now))
        self._alive += 1
        heapq.heappush(self._events, (ready_at, READY, len(self._fleet) - 1, 0))

    def result(self) -> FleetResult:
        """The account, once everything has happened."""
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

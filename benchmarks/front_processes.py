"""Compare a server of one process with one of two front processes, in turn, on the same machine.

    python benchmarks/front_processes.py [--streams 100] [--duration 15] [--rounds 2]
    python benchmarks/front_processes.py --carried 40 [--streams 100] [--duration 15]

Both have the scripted engine in one engine process, so that everything except a model is measured; `tympan bench load`
runs on the same machine. CPU milliseconds are those of each process per second of one stream; the busiest process
limits the number of streams, and `busiest_ms` is its share. Memory is the proportional set size (PSS) of all processes,
while all streams are open. `others_cores` is the number of cores that other programs used meanwhile: delays are only
meaningful if it is near zero. With `--carried`, the number of streams grows by a quarter from `--streams` on, for one
front and for two, until the p99 of the added delay is above so many milliseconds; the load generator needs a part of
the machine too, and `busy_cores` says how much of it is in use. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from statistics import median

import psutil
from front_cpu import free_port, wait_until_ready

TYMPAN = (sys.executable, "-m", "tympan")
NAMES = {"tympan.server.fronts.front": "front", "tympan.server.engine_process": "engine"}


def processes(server: psutil.Process) -> dict[psutil.Process, str]:
    """Return the processes of a server with what they are; workers that are forked are left out."""
    found = {server: "server"}
    for child in server.children():
        kind = next((name for module, name in NAMES.items() if module in child.cmdline()), "")
        if kind:
            found[child] = kind
    return found


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def machine_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0))


def measure(fronts: int, streams: int, duration: float) -> dict[str, float]:
    """Run one server under the load, and return its figures."""
    port, began = free_port(), time.monotonic()
    options = ("--model", "scripted", "--engine-processes", "1", "--max-streams", str(streams + 8))
    serve = ("serve", "--fronts", str(fronts), "--port", str(port), "--log-level", "warning", *options)
    load = ("bench", "load", f"ws://127.0.0.1:{port}", "--streams", str(streams), "--duration", str(duration))
    with subprocess.Popen([*TYMPAN, *serve]) as server:
        try:
            wait_until_ready(port)
            started = time.monotonic() - began
            time.sleep(1.0)
            with subprocess.Popen([*TYMPAN, *load], stdout=subprocess.PIPE, text=True) as running:
                time.sleep(streams / 50 + 3.0)  # the ramp
                found = processes(psutil.Process(server.pid))
                before, busy, at = {each: cpu_seconds(each) for each in found}, machine_seconds(), time.monotonic()
                time.sleep(max(2.0, duration - 4.0))
                took = time.monotonic() - at
                cpu = {each: cpu_seconds(each) - before[each] for each in found}
                busy = machine_seconds() - busy
                memory = sum(each.memory_full_info().pss for each in found)
                assert running.stdout is not None
                result = json.loads(running.stdout.read().splitlines()[-1])
        finally:
            with suppress(ProcessLookupError):
                server.terminate()
    by_kind: defaultdict[str, float] = defaultdict(float)
    for each, seconds in cpu.items():
        by_kind[found[each]] += seconds
    client = took * streams * result["client_cpu_ms_per_stream_second"] / 1000
    per_stream_second = 1000 / (took * streams)
    return {
        "start_seconds": round(started, 1),
        "added_ms_p50": result["added_ms_p50"],
        "added_ms_p99": result["added_ms_p99"],
        "late_ms_p99": result["late_ms_p99"],
        "lost": result["lost"] + result["repeated"] + result["changed"] + result["errors"],
        "busiest_ms": round(max(cpu.values()) * per_stream_second, 3),
        "all_ms": round(sum(cpu.values()) * per_stream_second, 3),
        **{f"{kind}_ms": round(seconds * per_stream_second, 3) for kind, seconds in by_kind.items()},
        "pss_mib": round(memory / 2**20),
        "busy_cores": round(busy / took, 2),
        "others_cores": round(max(0.0, busy - sum(cpu.values()) - client) / took, 2),
    }


def carried(fronts: int, streams: int, duration: float, within_ms: float) -> int:
    """Return the largest number of streams whose p99 added delay is within the limit; 1 if there is none."""
    most = 1
    while True:
        figures = measure(fronts, streams, duration)
        print(f"{fronts} front(s), {streams} streams: {json.dumps(figures)}", flush=True)
        if figures["lost"] or figures["added_ms_p99"] > within_ms:
            return most
        most, streams = streams, streams * 5 // 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--duration", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--carried", type=float, metavar="MS", help="find the streams within this p99 added delay")
    options = parser.parse_args()
    if options.carried:
        found = {fronts: carried(fronts, options.streams, options.duration, options.carried) for fronts in (1, 2)}
        print(json.dumps({"within_ms": options.carried, "streams": found, "ratio": round(found[2] / found[1], 2)}))
        return
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for fronts, measured in runs.items():
            measured.append(measure(fronts, options.streams, options.duration))
            print(f"{fronts} front(s): {json.dumps(measured[-1])}", flush=True)
    medians = {
        fronts: {name: round(median(each[name] for each in measured), 3) for name in measured[0]}
        for fronts, measured in runs.items()
    }
    print(json.dumps({"streams": options.streams, "rounds": options.rounds, "by_fronts": medians}))


if __name__ == "__main__":
    main()

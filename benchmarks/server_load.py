"""Run a load on the server, and measure delays, words, memory and CPU time.

    python benchmarks/server_load.py --streams 500 --duration 600 [--protocol native] [--report FILE.png]

Starts `tympan serve` with the scripted engine, which uses almost no CPU time, so that everything except a model is
measured. `tympan bench load` runs on the same machine, and the server's memory and CPU time are read once a second.
Memory is the median of the first and of the last tenth of the time in which all streams are open. `others_cores` is
the number of cores that other programs used meanwhile: delays are only meaningful if it is near zero.
The last line is JSON. Options that are not listed go to `tympan bench load`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import psutil
from front_cpu import free_port, wait_until_ready

TYMPAN = (sys.executable, "-m", "tympan")


def samples_of(server: psutil.Process, load: subprocess.Popen[str]) -> list[tuple[float, float, float, int]]:
    """Return a sample per second: the moment, CPU seconds of the server and of the machine, resident bytes."""
    samples = []
    while load.poll() is None:
        times, machine = server.cpu_times(), psutil.cpu_times()
        busy = sum(machine[:8]) - machine.idle - getattr(machine, "iowait", 0.0)
        samples.append((time.monotonic(), times.user + times.system, busy, server.memory_info().rss))
        time.sleep(1.0)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--duration", type=float, default=30)
    options, more = parser.parse_known_args()
    port = free_port()
    serve = ("serve", "--model", "scripted", "--max-streams", str(options.streams + 8), "--port", str(port))
    load = ("bench", "load", f"ws://127.0.0.1:{port}", "--streams", str(options.streams))
    with subprocess.Popen([*TYMPAN, *serve, "--log-level", "warning"]) as server:
        try:
            wait_until_ready(port)
            command = [*TYMPAN, *load, "--duration", str(options.duration), *more]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
                samples = samples_of(psutil.Process(server.pid), running)
                assert running.stdout is not None
                *shown, last = running.stdout.read().splitlines()
        finally:
            server.terminate()
    print("\n".join(shown))
    result = json.loads(last)
    # The load ends in a ramp and a scoring phase, like it begins; all streams are open in between.
    end = samples[-1][0] - result["ramp_seconds"] - 5.0
    steady = [sample for sample in samples if end - options.duration + 10.0 < sample[0] < end]
    tenth = max(1, len(steady) // 10)
    first, final = (statistics.median(rss for *_, rss in part) for part in (steady[:tenth], steady[-tenth:]))
    took, served, busy = (steady[-1][place] - steady[0][place] for place in range(3))
    own = served + took * options.streams * result["client_cpu_ms_per_stream_second"] / 1000
    result |= {
        "server_cpu_ms_per_stream_second": round(1000 * served / (took * options.streams), 3),
        "server_mib_first": round(first / 2**20, 1),
        "server_mib_last": round(final / 2**20, 1),
        "server_growth_percent": round(100 * (final / first - 1), 2),
        "others_cores": round(max(0.0, busy - own) / took, 2),
    }
    print(
        "server: {server_cpu_ms_per_stream_second} ms of CPU per second of a stream; {server_mib_first} MiB, later "
        "{server_mib_last}; other programs: {others_cores} cores".format_map(result)
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Measure how late the loop of an engine process is while two front processes are busy.

    python benchmarks/engine_lateness.py [--streams 500] [--duration 20] [--step-ms 30] [--fronts 2]

The scripted engine's step is a timer, so the time by which a step takes longer is the time for which the loop of the
engine process did something else, or waited for a core: reading frames, delivering events. `tympan bench load` runs on
the same machine. The last line is JSON; times are in milliseconds, and `others_cores` is the number of cores that other
programs used meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from front_cpu import cpu_seconds, free_port, wait_until_ready
from front_processes import TYMPAN, machine_seconds

SERVE = """
import sys
from tympan.cli.main import main
from tympan.server.observability import metrics
file, observe = open(sys.argv[1], "w"), metrics.StepMetrics.observe
def write(self, step):
    print(step.seconds, step.rows, file=file, flush=True)
    observe(self, step)
metrics.StepMetrics.observe = write
sys.exit(main(["serve", *sys.argv[2:]]))
"""


def measure(streams: int, duration: float, step_ms: float, fronts: int, steps: Path) -> dict[str, object]:
    """Run a server under the load, and return its figures; `steps` is the file of its steps."""
    port = free_port()
    options = ("--model", f"scripted:{step_ms:g}", "--engine-processes", "1", "--max-streams", str(streams + 8))
    serve = ("--fronts", str(fronts), "--port", str(port), "--log-level", "warning", *options)
    load = ("bench", "load", f"ws://127.0.0.1:{port}", "--streams", str(streams), "--duration", str(duration))
    with subprocess.Popen([sys.executable, "-c", SERVE, str(steps), *serve]) as server:
        try:
            wait_until_ready(port)
            time.sleep(1.0)
            with subprocess.Popen([*TYMPAN, *load], stdout=subprocess.PIPE, text=True) as running:
                time.sleep(streams / 50 + 2.0)  # the ramp
                process, first = psutil.Process(server.pid), len(steps.read_text().splitlines())
                own = cpu_seconds(process) + cpu_seconds(psutil.Process(running.pid))
                busy, began = machine_seconds(), time.monotonic()
                time.sleep(max(2.0, duration - 3.0))
                last, took = len(steps.read_text().splitlines()), time.monotonic() - began
                own = cpu_seconds(process) + cpu_seconds(psutil.Process(running.pid)) - own
                busy = machine_seconds() - busy
                assert running.stdout is not None
                result = json.loads(running.stdout.read().splitlines()[-1])
        finally:
            server.terminate()
    measured = np.array([line.split() for line in steps.read_text().splitlines()[first:last]], float)
    late = 1000 * measured[:, 0] - step_ms
    return {
        "streams": streams,
        "fronts": fronts,
        "step_ms": step_ms,
        "steps": len(late),
        "rows_mean": round(float(measured[:, 1].mean()), 1),
        **{f"late_p{percent}": round(float(np.percentile(late, percent)), 2) for percent in (50, 95, 99, 100)},
        "added_ms_p99": result["added_ms_p99"],
        "lost": result["lost"] + result["repeated"] + result["changed"] + result["errors"],
        "others_cores": round(max(0.0, busy - own) / took, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--duration", type=float, default=20)
    parser.add_argument("--step-ms", type=float, default=30)
    parser.add_argument("--fronts", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / "steps"
        print(json.dumps(measure(options.streams, options.duration, options.step_ms, options.fronts, steps)))


if __name__ == "__main__":
    main()

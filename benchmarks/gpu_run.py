"""Every GPU figure in one run of under ten minutes: `python benchmarks/gpu_run.py [--results benchmarks/results]`.

Runs each check and each load in a process of its own, so that one that fails costs only itself, and writes one JSON
file per live load and one for the checks. Needs numpy, torch, triton, safetensors, sentencepiece and msgspec, and the
moshi package for the comparison (where it is missing, that is left out and said). Packages may also lie in the folder
`carried/` beside `benchmarks/`. `gpu_report.py` makes the tables.

    --commit SHA   recorded where this is no git checkout
    --quick        every stage on the CPU with the tiny model, in a minute: shows that the run works, measures nothing
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
CARRIED = HERE.parent / "carried"
TOTAL_SECONDS = 590


@dataclass(frozen=True)
class Stage:
    """A process; `seconds` is the most it may take."""

    name: str
    command: tuple[str, ...]
    seconds: int
    environment: tuple[tuple[str, str], ...] = ()


def check(name: str, model: str, device: str, seconds: int, **environment: str) -> Stage:
    command = (str(HERE / "gpu_stages.py"), name, "--model", model, "--device", device)
    return Stage(name, command, seconds, tuple(environment.items()))


def live(name: str, streams: str, model: str, device: str, seconds: int, *options: str) -> Stage:
    command = ("-m", "tympan", "bench", "engine", "--model", model, "--device", device, "--live", streams, *options)
    return Stage(name, command, seconds)


def stages(quick: bool) -> list[Stage]:
    """The most wanted first: what does not fit into the time is left out."""
    if quick:
        tiny = ("random:tiny", "cpu")
        return [
            live("live f32", "1,3", *tiny, 60, "--dtype", "f32", "--seconds", "1"),
            live("live fp8", "3", *tiny, 60, "--dtype", "f32", "--kv-dtype", "fp8", "--seconds", "1"),
            check("agreement", *tiny, 60),
        ]
    model = ("random:1b", "cuda")
    return [
        check("kernels", *model, 60),
        live("live bf16", "900,1000,1100,1200", *model, 150, "--dtype", "bf16", "--seconds", "12"),
        live("live fp8", "1800,2000,2200,2300", *model, 160, "--dtype", "bf16", "--kv-dtype", "fp8", "--seconds", "12"),
        check("moshi", *model, 120, NO_TORCH_COMPILE="1"),
        check("exactness", *model, 90),
        check("agreement", *model, 110),
        check("sweep", *model, 60),
        live("live f16", "64", *model, 60, "--dtype", "f16", "--seconds", "4"),
        live("live int8 weights", "64", *model, 60, "--dtype", "int8", "--seconds", "4"),
        live("live fp8 weights", "64", *model, 60, "--dtype", "fp8", "--seconds", "4"),
    ]


def run(stage: Stage, seconds: float) -> dict[str, object]:
    """What its last line says, or what it failed with; and how long it took."""
    start = time.monotonic()
    environment = {**os.environ, **dict(stage.environment)}
    paths = (str(HERE.parent / "src"), environment.get("PYTHONPATH", ""), str(CARRIED))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    try:
        result = subprocess.run(
            [sys.executable, *stage.command],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
        lines = result.stdout.splitlines()
        found = json.loads(lines[-1]) if result.returncode == 0 and lines else {"failed": result.stderr[-1500:]}
    except subprocess.TimeoutExpired:
        found = {"failed": f"took more than {seconds:.0f} s"}
    return {**found, "took_seconds": round(time.monotonic() - start, 1)}


def run_what_fits(stage: Stage, seconds: float) -> dict[str, object]:
    """Like `run`; when the engine says that so many streams do not fit, again with what it says does."""
    start = time.monotonic()
    found = run(stage, seconds)
    fits = re.search(r"use --max-streams (\d+)", str(found.get("failed")))
    if fits is None or "--live" not in stage.command:
        return found
    most, place = int(fits[1]), stage.command.index("--live") + 1
    streams = [int(count) for count in stage.command[place].split(",") if int(count) < most]
    command = list(stage.command)
    command[place] = ",".join(str(count) for count in [*streams[-3:], most])
    return run(replace(stage, command=tuple(command)), seconds - (time.monotonic() - start))


def write(folder: Path, name: str, content: dict[str, object]) -> None:
    file = folder / f"{name.replace(' ', '-').replace('/', '-')}.json"
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {file}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--commit")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + TOTAL_SECONDS
    checks: dict[str, object] = {"date": date.today().isoformat()}
    sys.path.append(str(CARRIED))
    if importlib.util.find_spec("moshi") is None:
        checks["moshi"] = {"failed": "the moshi package is not installed"}
    loads: list[dict[str, object]] = []
    for stage in stages(arguments.quick):
        left = deadline - time.monotonic()
        if stage.name in checks or left < 10:
            continue
        found = run_what_fits(stage, min(stage.seconds, left))
        print(f"{stage.name}: {json.dumps(found)[:300]}", flush=True)
        runs = found.pop("runs", [])
        checks[stage.name] = found
        assert isinstance(runs, list)
        loads += runs
    moshi = checks.get("moshi")
    for load in loads:
        load["date"] = checks["date"]
        load["commit"] = arguments.commit or load["commit"]
        load["moshi_streams"] = moshi.get("moshi_streams") if isinstance(moshi, dict) else None
        names = ("date", "gpu", "weights_dtype", "kv_dtype", "streams")
        write(arguments.results, " ".join(str(load[name] or "cpu") for name in names), load)
    checks["gpu"] = loads[0]["gpu"] if loads else None
    write(arguments.results, f"{checks['date']} {checks['gpu'] or 'cpu'} checks", checks)


if __name__ == "__main__":
    main()

"""Measure everything that docs/reliability.md states, in about two hours, and write the page.

    python benchmarks/reliability.py [--only NAME ...]     measure, then write the page
    python benchmarks/reliability.py --render              write the page from the kept files
    python benchmarks/reliability.py --quick               small loads into a temporary folder, to test the script

Each stage is a separate command, so that a failure affects no other stage, and writes one JSON file into
benchmarks/results/reliability: machine, versions, commit, command, figures. `reliability_page.py` writes the page.
Needs the development packages, an idle machine, and root for the test with network namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from reliability_page import page

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"
PACKAGES = ("tympan", "uvicorn", "picows", "uvloop", "websockets", "numpy")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A command and the parser of its output.

    Attributes:
        name: Name of the result file.
        command: The command.
        quick: The command of a quick run; empty to leave the stage out.
        seconds: Most seconds it may take.
        read: Returns the figures in its output.
    """

    name: str
    command: str
    quick: str
    seconds: int
    read: Callable[[str], Figures]


def last_line(output: str) -> Figures:
    """Return the JSON in the last line of a benchmark."""
    found: Figures = json.loads(output.splitlines()[-1])
    return found


def passed(output: str) -> Figures:
    """Return the numbers of passed and skipped tests, and every line of JSON that they printed."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    count = re.search(r"(\d+) passed", output)
    skipped = re.search(r"(\d+) skipped", output)
    return {
        "passed": int(count[1]) if count else 0,
        "skipped": int(skipped[1]) if skipped else 0,
        "lines": lines,
    }


def fuzzed(output: str) -> Figures:
    """Return the number of generated frames of each protocol, with the results of the tests."""
    frames = re.findall(r"^\.*(\w+): (\d+) frames, (\d+) conversations", output, re.MULTILINE)
    return {"frames": {name: int(count) for name, count, _ in frames}, **passed(output)}


TESTS = "python -m pytest -q -s"
COSTLY = "tests/fuzz/test_stalls.py tests/fuzz/test_descriptors.py"
STAGES = (
    Stage(
        "load",
        "python benchmarks/server_load.py --streams 500 --duration 600",
        "python benchmarks/server_load.py --streams 20 --duration 20",
        900,
        last_line,
    ),
    Stage(
        "front",
        "python benchmarks/front_cpu.py --kinds bare,tympan --streams 300 --skip 65 --seconds 15 --rounds 3",
        "python benchmarks/front_cpu.py --streams 20 --seconds 3 --rounds 1",
        900,
        last_line,
    ),
    Stage("faults", f"{TESTS} -m fault tests/faults", f"{TESTS} -m fault tests/faults -k clock", 600, passed),
    Stage(
        "fuzz",
        f"{TESTS} -m fuzz tests/fuzz/test_fuzz_protocols.py",
        f"{TESTS} -m fuzz tests/fuzz/test_fuzz_protocols.py -k native",
        600,
        fuzzed,
    ),
    Stage(
        "abuse",
        f"{TESTS} -m fuzz tests/fuzz/test_abuse.py tests/fuzz/test_fuzz_http.py tests/fuzz/test_fuzz_sockets.py",
        "",
        1200,
        passed,
    ),
    Stage(
        "hostile",
        f"{TESTS} -m fuzz tests/fuzz/test_hostile_containers.py {COSTLY}",
        f"{TESTS} -m fuzz tests/fuzz/test_hostile_containers.py",
        900,
        passed,
    ),
    Stage(
        "churn",
        "python benchmarks/churn.py",
        "python benchmarks/churn.py --seconds 20 --streams 10 --settle 11",
        2400,
        last_line,
    ),
    Stage("churn_model", "python benchmarks/churn.py --model random:tiny --seconds 1200", "", 2400, last_line),
    Stage(
        "connections",
        f"{TESTS} tests/client/test_lost_connection.py tests/server/sessions/test_resume.py",
        f"{TESTS} tests/client/test_lost_connection.py -k flush",
        300,
        passed,
    ),
    Stage("day", f"{TESTS} -m long tests/session/test_a_day.py", "", 1500, passed),
)


def run(stage: Stage, command: str, commit: str, *, quick: bool) -> Figures:
    """Run a stage and return its result; `failed` replaces `figures` if it did not succeed."""
    start = time.monotonic()
    sources = os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": sources, "HOSTILE_FILES": "50" if quick else "2000"}
    found: Figures
    try:
        done = subprocess.run(
            [sys.executable, *command.split()[1:]],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=stage.seconds,
            check=False,
        )
        output = done.stdout
        found = {"figures": stage.read(output)} if done.returncode == 0 else {"failed": (output + done.stderr)[-3000:]}
    except subprocess.TimeoutExpired:
        found = {"failed": f"it took more than {stage.seconds} s"}
    return {
        "command": command,
        "date": date.today().isoformat(),
        "commit": commit,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "took_seconds": round(time.monotonic() - start, 1),
        **found,
    }


def machine() -> str:
    """Return the processor, the cores and the memory of this machine."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    facts = dict(re.findall(r"^(model name|cpu family|model)\s*: (.+)$", text, re.MULTILINE))
    name = facts.get("model name", platform.machine())
    # The name that a hypervisor reports may belong to several generations.
    number = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    memory = round(psutil.virtual_memory().total / 2**30)
    return f"{name}{number}, {os.cpu_count()} cores, {memory} GiB"


def commit_now() -> str:
    """Return the commit, with a plus if files have changed since."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    sources = ("src", "tests", "benchmarks/*.py")
    changed = subprocess.run([*git, "status", "--porcelain", "--", *sources], capture_output=True, check=True)
    return head.stdout.strip() + ("+" if changed.stdout else "")


def measure(results: Path, names: list[str], quick: bool) -> list[str]:
    """Run the stages; returns the names of those that failed."""
    commit, failed = commit_now(), []
    for stage in STAGES:
        command = stage.quick if quick else stage.command
        if not command or (names and stage.name not in names):
            continue
        print(f"{stage.name}: {command}", flush=True)
        found = run(stage, command, commit, quick=quick)
        if "failed" in found:
            failed.append(stage.name)
            print(found["failed"])
        print(f"  {found['took_seconds']} s: {json.dumps(found.get('figures', 'failed'))[:200]}", flush=True)
        (results / f"{stage.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], choices=[stage.name for stage in STAGES], metavar="NAME")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="small loads, nothing kept")
    options = parser.parse_args()
    results, target = RESULTS, PAGE
    if options.quick:
        results = Path(tempfile.mkdtemp(prefix="reliability-"))
        target = results / "reliability.md"
    failed = [] if options.render else measure(results, options.only, options.quick)
    kept = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in results.glob("*.json")}
    target.write_text(page(kept, {stage.name: stage.command for stage in STAGES}), encoding="utf-8")
    print(f"wrote {target}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

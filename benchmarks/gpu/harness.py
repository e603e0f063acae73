"""Run the stages of a measuring script, each in its own process, within the script's time.

Every result is appended to one file of JSON lines as soon as it exists. A stage that crashes, hangs or runs out of
memory costs only itself. Nothing here imports torch: the process that keeps the results must survive whatever a stage
does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu.items import CUDA_LOST, FAILURES, Context, run_items
from gpu.process import Message, kill_all, run_process

ROOT = Path(__file__).parents[2]
_MOST_LOG_BYTES = 8 * 2**20
_MOST_SHOWN = 45  # lines of figures in the summary
_FAILED_TIMEOUT_SECONDS = 20.0  # of a stage that hangs on purpose


@dataclass(frozen=True)
class Stage:
    """A stage, which runs in its own process.

    Attributes:
        items: ``module:function`` that yields its items.
        seconds: Most seconds it may take.
        least: Seconds below which it is left out.
        beside: Whether it runs concurrently with the previous stage.
        needs_cuda: Whether it is skipped on a CPU.
        resumes: How often it continues in a new process after an item that ended the previous one.
        fallback: Stage that runs if this one fails.
    """

    name: str
    items: str
    seconds: float
    least: float = 5.0
    beside: bool = False
    needs_cuda: bool = False
    resumes: int = 2
    options: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    quick_environment: tuple[tuple[str, str], ...] = ()
    fallback: Stage | None = None


@dataclass(frozen=True)
class Script:
    """A measuring script: its stages, the most important first, and the seconds for all of them."""

    name: str
    path: Path
    about: str
    stages: Sequence[Stage]
    seconds: float
    quick_seconds: float = 110.0
    model: str = "random:1b"


class Recorder:
    """The files of one run: ``NAME.jsonl`` with a record per line, and ``NAME.log`` with the output of the stages."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self._log = folder / f"{name}.jsonl", folder / f"{name}.log"
        self._lock = threading.Lock()
        self._log_bytes = 0
        self.records: list[dict[str, Any]] = []

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and flush it to the disk."""
        with self._lock:
            self.records.append(record)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def log(self, stage: str, line: str) -> None:
        with self._lock:
            if self._log_bytes < _MOST_LOG_BYTES:
                text = f"[{stage}] {line}\n"
                self._log_bytes += len(text)
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(text)


@dataclass
class Run:
    """One run of a script."""

    script: Script
    arguments: argparse.Namespace
    recorder: Recorder
    ends: float
    failures: dict[str, str] = field(default_factory=dict)

    def all_stages(self) -> None:
        group: list[Stage] = []
        for stage in self.script.stages:
            if group and not stage.beside:
                self._together(group)
                group = []
            group.append(stage)
        self._together(group)

    def _together(self, group: Sequence[Stage]) -> None:
        with ThreadPoolExecutor(max(1, len(group))) as pool:
            for done in [pool.submit(self._stage, stage) for stage in group]:
                done.result()

    def _stage(self, stage: Stage) -> None:
        """Run a stage, and its fallback if it failed."""
        left = self.ends - time.monotonic()
        if stage.needs_cuda and self.arguments.device == "cpu":
            self._end(stage, {"skipped": "needs CUDA"})
        elif left < stage.least:
            self._end(stage, {"left_out": f"{max(0.0, left):.0f} s left, it needs {stage.least:.0f} s"})
        else:
            well = self._in_processes(stage, min(_patience(self.arguments) * stage.seconds, left))
            if not well and stage.fallback is not None:
                self._stage(stage.fallback)

    def _in_processes(self, stage: Stage, seconds: float) -> bool:
        """Run a stage in one process, or in several if an item breaks one; returns whether all went well."""
        fail = self.failures.get(stage.name, "")
        ends = time.monotonic() + (min(seconds, _FAILED_TIMEOUT_SECONDS) if fail == "timeout" else seconds)
        start, after, problems, last = time.monotonic(), "", [], None
        for attempt in range(stage.resumes + 1):
            last = self._process(stage, ends, ("--after", after, "--fail-with", "" if attempt else fail))
            broken = last.running or (last.items[-1]["item"] if last.returncode == CUDA_LOST and last.items else "")
            if last.failed and last.returncode != CUDA_LOST:
                problems.append(last.failed)
                if last.running:
                    record = {"item": last.running, "ok": False, "failed": last.failed, "tail": list(last.tail)}
                    self._keep(stage, record)
            if not broken or last.timed_out or attempt == stage.resumes or ends - time.monotonic() < stage.least:
                break
            if last.returncode == CUDA_LOST:  # the error came after the launch that made it: have it come there
                blocking = (*stage.environment, ("CUDA_LAUNCH_BLOCKING", "1"))
                self._process(replace(stage, environment=blocking), ends, ("--only", broken))
            after = broken
        records = [record for record in self.recorder.records if record.get("stage") == stage.name and "item" in record]
        bad = [record["item"] for record in records if not record.get("ok", True)]
        outcome: dict[str, Any] = {"ok": not problems and not bad, "bad_items": bad, "failed": "; ".join(problems)}
        if last is not None and last.failed:
            outcome |= {"returncode": last.returncode, "signal": last.signal, "tail": list(last.tail)}
        self._end(stage, {**outcome, "items": len(records), "seconds": round(time.monotonic() - start, 1)})
        return bool(outcome["ok"])

    def _process(self, stage: Stage, ends: float, more: Sequence[str]) -> Any:
        seconds = ends - time.monotonic()
        arguments = self.arguments
        options = [part for name, value in stage.options for part in ("--option", f"{name}={value}")]
        command = [sys.executable, str(self.script.path), "--stage", stage.items, "--seconds", f"{seconds - 1:.1f}"]
        command += ["--scratch", str(arguments.scratch), *options, *more]
        command += ["--device", arguments.device, "--commit", arguments.commit or "", *["--quick"] * arguments.quick]
        extra = dict((*stage.environment, *(stage.quick_environment if arguments.quick else ())))
        path = (str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", ""), str(ROOT / "carried"))
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", **extra}
        if arguments.quick:
            environment["OMP_NUM_THREADS"] = "1"  # stages run side by side on few cores
        environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)

        def keep(message: Message) -> None:
            self._keep(stage, {**message, **({"environment": extra} if extra else {})})

        return run_process(command, environment, seconds, keep, lambda line: self.recorder.log(stage.name, line))

    def _keep(self, stage: Stage, message: dict[str, Any]) -> None:
        self.recorder.append({"record": "item", "stage": stage.name, **message})
        self.recorder.log(stage.name, json.dumps(message)[:2000])
        state = "skipped" if "skipped" in message else "ok" if message.get("ok") else "FAILED"
        detail = message.get("shown") or message.get("failed") or message.get("missed") or message.get("skipped") or ""
        print(f"{stage.name}: {message['item']}: {state} {str(detail)[:200]}", flush=True)

    def _end(self, stage: Stage, outcome: dict[str, Any]) -> None:
        environment = {"environment": dict(stage.environment)} if stage.environment else {}
        self.recorder.append({"record": "stage", "stage": stage.name, **outcome, **environment})

    def summary(self) -> tuple[str, bool]:
        """Return a summary of the figures and the stages, and whether all stages succeeded."""
        lines, well = [], True
        for record in self.recorder.records:
            if record.get("shown"):
                shown = ", ".join(f"{name} {value}" for name, value in record["shown"].items())
                lines.append(f"{record['stage']}: {record['item']}: {shown}"[:160])
        lines = lines[-_MOST_SHOWN:]
        for record in self.recorder.records:
            if record["record"] != "stage":
                continue
            why = record.get("skipped") or record.get("left_out") or record.get("failed") or ""
            if record.get("bad_items"):
                why += f" items: {', '.join(record['bad_items'])}"
            not_run = [name for name in ("skipped", "left_out") if name in record]
            state = not_run[0] if not_run else "ok" if record["ok"] else "FAILED"
            well = well and state != "FAILED"
            lines.append(f"{record['stage']:<24}{state:<10}{record.get('seconds', 0):>7} s  {why.strip()[:160]}")
        return "\n".join(lines), well


def main(script: Script) -> int:
    """Run the script, or one of its stages in a process that another run of it started; returns the exit status."""
    parser = argparse.ArgumentParser(description=script.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the results")
    parser.add_argument("--commit", help="the commit measured, for a tree that is not a git checkout")
    parser.add_argument("--quick", action="store_true", help="run on the CPU with a tiny model, to test the script")
    parser.add_argument("--stages", metavar="NAME,NAME…", help="run these stages only")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default: %(default)s")
    parser.add_argument("--scratch", type=Path, default=scratch_folder(), help="folder for the drawn checkpoint")
    parser.add_argument("--fail", action="append", default=[], metavar="STAGE=KIND", help=f"one of {FAILURES}, to test")
    for name in ("--stage", "--after", "--only", "--fail-with"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    parser.add_argument("--option", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.device = "cpu" if arguments.quick else arguments.device
    return _run_stage(script, arguments) if arguments.stage else _run_all(script, arguments)


def scratch_folder() -> Path:
    """Return a folder in memory, or where temporary files go if there is none."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return base / f"tympan-gpu-{os.getuid()}"


def _run_stage(script: Script, arguments: argparse.Namespace) -> int:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # print() writes to the log
    context = Context(
        model="random:tiny" if arguments.quick else script.model,
        device=arguments.device,
        quick=arguments.quick,
        scratch=arguments.scratch,
        ends=time.monotonic() + arguments.seconds,
        options=dict(option.split("=", 1) for option in arguments.option),
        commit=arguments.commit or None,
        command=f"python benchmarks/{script.path.name}",
    )
    module, _, function = arguments.stage.partition(":")
    items = getattr(importlib.import_module(module), function)(context)
    return run_items(items, out, only=arguments.only, after=arguments.after, fail=arguments.fail_with)


def _run_all(script: Script, arguments: argparse.Namespace) -> int:
    failures = dict(failure.split("=", 1) for failure in arguments.fail)
    names = [stage.name for stage in script.stages]
    if not set(names) >= failures.keys() or not set(FAILURES) >= set(failures.values()):
        raise SystemExit(f"--fail takes STAGE=KIND: one of {names} and one of {FAILURES}")
    wanted = names if arguments.stages is None else arguments.stages.split(",")
    if not set(names) >= set(wanted):
        raise SystemExit(f"--stages takes names with commas between them, of {names}")
    script = replace(script, stages=[stage for stage in script.stages if stage.name in wanted])
    began = datetime.now(UTC)
    start = time.monotonic()
    recorder = Recorder(arguments.results, f"gpu-{script.name}-{began:%Y%m%dT%H%M%SZ}")
    seconds = _patience(arguments) * (script.quick_seconds if arguments.quick else script.seconds)
    run = Run(script, arguments, recorder, start + seconds, failures)
    about = {"script": script.name, "date": f"{began:%Y-%m-%d}", "began": began.isoformat(timespec="seconds")}
    how = {"commit": arguments.commit, "quick": arguments.quick, "device": arguments.device, "stages": wanted}
    recorder.append({"record": "run", **about, **how})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    run.all_stages()
    table, well = run.summary()
    took = round(time.monotonic() - start, 1)
    recorder.append({"record": "end", "ok": well, "seconds": took})
    verdict = "all well" if well else "SOMETHING FAILED"
    print(f"\n{table}\n{verdict} after {took} s of {seconds:.0f} s: {recorder.file.name}")
    return 0 if well else 1


def _patience(arguments: argparse.Namespace) -> float:
    """Return the factor for all time limits, which is larger for the full model on a CPU."""
    return 20.0 if arguments.device == "cpu" and not arguments.quick else 1.0


def _stop(number: int, frame: object) -> None:
    kill_all()
    os._exit(128 + number)

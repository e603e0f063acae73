"""The scripts that measure on a GPU: a failing stage is reported, and the results of the others are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KINDS = ("exit", "exception", "segfault", "timeout", "garbage", "oom", "kill", "cuda")
# A script whose stages need no torch. The names of the stages say what they do.
SCRIPT = f"""
import os, subprocess, sys
from pathlib import Path
sys.path[:0] = [{str(BENCHMARKS)!r}, str(Path(__file__).parent)]
from gpu.harness import Script, Stage, main
from gpu.items import Item, at_most

def three(context):
    print("printed by a stage")
    for number in range(3):
        blocking = os.environ.get("CUDA_LAUNCH_BLOCKING")
        yield Item(f"item {{number}}", lambda: {{"number": number, "blocking": blocking}}, {{"number": at_most(2)}})

def keeps(context):
    kept = []
    yield Item("load", lambda: kept.append(1) or {{}}, setup=True)
    yield Item("uses", lambda: {{"kept": kept[0]}}, setup=True)
    yield Item("uses too", lambda: {{"kept": kept[0]}})
    yield Item("uses last", lambda: {{"kept": kept[0]}})

def breaks(context):
    yield Item("first", lambda: {{}})
    raise ValueError("broken between items")

def misses(context):
    yield Item("not a number", lambda: {{"error": float("nan")}}, {{"error": at_most(1.0)}})
    yield Item("too large", lambda: {{"error": 2.0}}, {{"error": at_most(1.0)}})
    yield Item("missing", lambda: {{}}, {{"error": at_most(1.0)}})

def leaves(context):
    child = subprocess.Popen(["sleep", "100"])
    yield Item("child", lambda: {{"pid": child.pid}})

def stage(name, **options):
    seconds = float(os.environ["STAGE_SECONDS"])
    return Stage(name, f"script:{{name.split()[0]}}", seconds, **{{"least": 0.5, **options}})

STAGES = {{
    "three": (stage("three"), stage("three beside", beside=True), stage("three more")),
    "keeps": (stage("keeps"),),
    "breaks": (stage("breaks", fallback=stage("three instead")), stage("three")),
    "misses": (stage("misses"),),
    "leaves": (stage("leaves"),),
    "cuda": (stage("three", needs_cuda=True),),
    "no time": (stage("three", least=1000), stage("three beside")),
}}
if __name__ == "__main__":
    sys.exit(main(Script("test", Path(__file__), "about", STAGES[os.environ["STAGES"]], 60, quick_seconds=60)))
"""
Record = dict[str, Any]


def run(folder: Path, stages: str, *arguments: str) -> tuple[int, list[Record], str]:
    """Return the exit status, the records and the output."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    results = folder / "results"
    command = [sys.executable, str(script), "--quick", "--results", str(results), *arguments]
    seconds = "3" if "three=timeout" in arguments else "30"  # starting a process may take long on a busy machine
    environment = {**os.environ, "STAGES": stages, "STAGE_SECONDS": seconds}
    done = subprocess.run(command, capture_output=True, text=True, timeout=59, env=environment, check=False)
    assert not done.stderr
    return done.returncode, read(results), done.stdout


def read(results: Path) -> list[Record]:
    (file,) = results.glob("*.jsonl")
    assert len(list(results.iterdir())) <= 2
    return [json.loads(line) for line in file.read_text().splitlines()]


def items(records: list[Record], stage: str) -> list[Record]:
    return [record for record in records if record["record"] == "item" and record["stage"] == stage]


def stage_of(records: list[Record], name: str) -> Record:
    (found,) = (record for record in records if record["record"] == "stage" and record["stage"] == name)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_failing_stage_affects_no_other(tmp_path: Path, kind: str) -> None:
    status, records, printed = run(tmp_path, "three", "--fail", f"three={kind}")
    assert status == 1
    assert records[-1] == {"record": "end", "ok": False, "seconds": records[-1]["seconds"]}
    for other in ("three beside", "three more"):
        assert [item["ok"] for item in items(records, other)] == [True, True, True]
        assert stage_of(records, other)["ok"]
    failed = stage_of(records, "three")
    assert failed["bad_items"] == ["item 1"]
    kept = items(records, "three")
    assert kept[0]["ok"], "earlier results are kept"
    (failure,) = (item["failed"] for item in kept if "failed" in item)
    expected = {
        "exit": "exit status 3",
        "exception": "RuntimeError: an exception on purpose",
        "segfault": "SIGSEGV",
        "timeout": "timeout: killed after",
        "garbage": "not JSON in 'item 1': 'this is not JSON'",
        "oom": "out of memory",
        "kill": "SIGKILL in 'item 1': the machine's memory ran out",
        "cuda": "CUDA error",
    }
    assert expected[kind] in failure
    assert kept[-1]["item"] == ("item 1" if kind == "timeout" else "item 2"), "the stage continues after the failure"
    assert "FAILED" in printed
    assert "SOMETHING FAILED" in printed.splitlines()[-1]


def test_item_that_loses_the_gpu_runs_again(tmp_path: Path) -> None:
    _, records, _ = run(tmp_path, "three", "--fail", "three=cuda")
    again = [item for item in items(records, "three") if item["item"] == "item 1"]
    assert [item.get("environment") for item in again] == [None, {"CUDA_LAUNCH_BLOCKING": "1"}]
    assert again[0]["cuda_error"]
    assert "Traceback" in again[0]["traceback"]
    assert again[1]["values"]["blocking"] == "1"


@pytest.mark.parametrize("kind", ["cuda", "segfault"])
def test_setup_items_run_again(tmp_path: Path, kind: str) -> None:
    """The second of four items fails: later ones are skipped because of it, not because the first is missing."""
    status, records, _ = run(tmp_path, "keeps", "--fail", f"keeps={kind}")
    assert status == 1
    found = items(records, "keeps")
    assert [item["item"] for item in found if item["item"] == "load"] == ["load"], "recorded once"
    again = [item for item in found if item["item"] == "uses"]
    assert [item["ok"] for item in again] == ([False, True] if kind == "cuda" else [False])
    assert again[-1]["values"] == {"kept": 1} if kind == "cuda" else "SIGSEGV" in again[0]["failed"]
    for name in ("uses too", "uses last"):
        (item,) = (item for item in found if item["item"] == name)
        assert item["skipped"] == "it needs 'uses', which failed"


def test_signal_leaves_a_traceback(tmp_path: Path) -> None:
    _, records, _ = run(tmp_path, "three", "--fail", "three=segfault")
    (crashed,) = (item for item in items(records, "three") if not item["ok"])
    assert any("Segmentation fault" in line for line in crashed["tail"])
    assert any("make_failure" in line for line in crashed["tail"])


def test_broken_stage_has_traceback_and_fallback(tmp_path: Path) -> None:
    status, records, _ = run(tmp_path, "breaks")
    assert status == 1
    broken = stage_of(records, "breaks")
    assert broken["failed"] == "exit status 1: ValueError: broken between items"
    assert broken["returncode"] == 1
    assert broken["tail"][0].startswith("Traceback")
    assert items(records, "breaks")[0]["ok"]
    assert stage_of(records, "three instead")["ok"]
    assert stage_of(records, "three")["ok"]


def test_missed_limit_fails_the_script(tmp_path: Path) -> None:
    status, records, _ = run(tmp_path, "misses")
    assert status == 1
    assert [item["missed"] for item in items(records, "misses")] == [
        ["error is nan, expected at most 1"],
        ["error is 2.0, expected at most 1"],
        ["error is None, expected at most 1"],
    ]


def test_children_of_a_stage_are_killed(tmp_path: Path) -> None:
    status, records, _ = run(tmp_path, "leaves")
    assert status == 0
    pid = items(records, "leaves")[0]["values"]["pid"]
    for _ in range(50):
        if not Path(f"/proc/{pid}/stat").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the process is still there")


def test_stages_without_time_or_gpu_do_not_run(tmp_path: Path) -> None:
    status, records, _ = run(tmp_path, "no time")
    assert status == 0
    assert stage_of(records, "three")["left_out"] == "60 s left, it needs 1000 s"
    assert stage_of(records, "three beside")["ok"]
    folder = tmp_path / "second"
    folder.mkdir()
    status, records, _ = run(folder, "cuda")
    assert status == 0
    assert stage_of(records, "three")["skipped"] == "needs CUDA"


def test_log_has_the_output_of_stages(tmp_path: Path) -> None:
    run(tmp_path, "three", "--stages", "three,three more")
    (log,) = (tmp_path / "results").glob("*.log")
    assert log.read_text().count("printed by a stage") == 2
    assert len(read(tmp_path / "results")) == 1 + 2 * (3 + 1) + 1


def quick(script: str, results: Path, scratch: Path, *arguments: str) -> tuple[int, list[Record]]:
    command = [
        sys.executable,
        str(BENCHMARKS / script),
        "--quick",
        "--results",
        str(results),
        "--scratch",
        str(scratch),
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=280, check=False)
    return done.returncode, read(results)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "count"), [("gpu_smoke.py", 9), ("gpu_figures.py", 10)], ids=["the smoke test", "the figures"]
)
def test_scripts_on_a_cpu_with_and_without_failures(tmp_path: Path, script: str, count: int) -> None:
    """Run the scripts as they are, then with a failure in every stage, of all kinds that need no GPU."""
    pytest.importorskip("moshi")
    status, records = quick(script, tmp_path / "well", tmp_path)
    stages = [record["stage"] for record in records if record["record"] == "stage"]
    assert status == 0, [record for record in records if not record.get("ok", True)]
    assert len(stages) == count
    failures = {stage: KINDS[place % 6] for place, stage in enumerate(stages)}
    arguments = [part for stage, kind in failures.items() for part in ("--fail", f"{stage}={kind}")]
    status, broken = quick(script, tmp_path / "broken", tmp_path, *arguments)
    assert status == 1
    for stage in stages:
        outcome = stage_of(broken, stage)
        assert "left_out" in outcome or (not outcome["ok"] and outcome["bad_items"]), stage
        first = items(records, stage)[0]["item"]
        kept = {item["item"]: item for item in items(broken, stage)}
        assert "left_out" in outcome or kept[first].get("ok"), f"{stage}: earlier results are kept"

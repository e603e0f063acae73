"""The page about reliability is written from the kept result files only."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks" / "results" / "reliability"

Results = dict[str, dict[str, Any]]


@pytest.fixture
def reliability(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("reliability")


@pytest.fixture
def kept() -> Results:
    return {file.stem: json.loads(file.read_text()) for file in KEPT.glob("*.json")}


def page(reliability: ModuleType, results: Results) -> str:
    text: str = reliability.page(results, {stage.name: stage.command for stage in reliability.STAGES})
    return text


def test_page_matches_the_kept_results(reliability: ModuleType, kept: Results) -> None:
    assert page(reliability, kept) == (ROOT / "docs" / "reliability.md").read_text()


def test_results_are_of_full_commands(reliability: ModuleType, kept: Results) -> None:
    commands = {stage.name: stage.command for stage in reliability.STAGES}
    assert {name: result["command"] for name, result in kept.items()}.items() <= commands.items()


def test_page_shows_missing_and_failed_stages(reliability: ModuleType, kept: Results) -> None:
    text = page(reliability, {})
    assert text.count("Not measured yet.") == len(reliability.STAGES)
    assert all(stage.command in text for stage in reliability.STAGES)
    load = {**kept["load"], "failed": "a trace"}
    del load["figures"]
    assert "**The last run failed**" in page(reliability, {"load": load})


def test_page_shows_lost_words(reliability: ModuleType, kept: Results) -> None:
    line = {"fault": "a fault", "streams": 2, "words": 50, "lost": 7, "repeated": 3, "errors": 1}
    figures = {"passed": 1, "skipped": 2, "lines": [{**line, "seconds_without_words": 4.5}]}
    text = page(reliability, {"faults": {**kept["load"], "figures": figures}})
    assert "| a fault | 2 | 50 | 7 | 3 | 1 | 4.5 |" in text
    assert "2 were skipped here" in text
    load = {**kept["load"]["figures"], "lost": 4, "errors": 2}
    assert "4 lost, 0 repeated, 0 changed; 2 sessions broke" in page(
        reliability, {"load": {**kept["load"], "figures": load}}
    )


def test_stage_reads_the_output_of_its_command(reliability: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "prints.py"
    script.write_text("""print('native: 5 frames, 2 conversations, ends\\n{"fault": 1}\\n1 passed')""")
    stage = reliability.Stage("x", f"python {script}", "", 20, reliability.fuzzed)
    found = reliability.run(stage, stage.command, "abc", quick=True)
    assert found["figures"] == {"frames": {"native": 5}, "passed": 1, "skipped": 0, "lines": [{"fault": 1}]}
    assert found["commit"] == "abc"
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    failing = reliability.Stage("x", "python -c 1/0", "", 20, reliability.last_line)
    assert "ZeroDivisionError" in reliability.run(failing, failing.command, "abc", quick=True)["failed"]

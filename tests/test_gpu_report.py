"""The page with the GPU's figures: made from the JSON files that are kept, and from nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN = {
    "gpu": "A GPU",
    "driver": "1.2",
    "torch": "2.11",
    "commit": "abc",
    "command": "tympan bench engine --live 10,20",
    "date": "2026-01-01",
    "model": "random:1b",
    "weights_dtype": "bf16",
    "kv_dtype": "fp8",
    "context_frames": 750,
    "step_ms_p50": 10.0,
    "step_ms_p95": 20.0,
    "frame_to_token_ms_p99": 90.5,
    "flush_ms_p99_idle": 30.0,
    "flush_ms_p99_loaded": None,
    "batch1_step_ms": 3.0,
    "attention_rows": 512,
    "attention_gbps": 2000.0,
    "copy_gbps": 4000.0,
    "attention_copy_rate_share": 0.5,
    "moshi_streams": 7,
}


def report(results: Path, page: Path) -> str:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu_report.py"),
        "--results",
        str(results),
        "--page",
        str(page),
    ]
    subprocess.run(command, check=True, timeout=50)
    return page.read_text()


def test_the_kept_page_is_what_the_kept_files_say(tmp_path: Path) -> None:
    kept = ROOT / "docs" / "gpu.md"
    page = tmp_path / "gpu.md"
    page.write_text(kept.read_text())
    assert report(ROOT / "benchmarks" / "results", page) == kept.read_text()


def test_without_a_run_the_page_says_that_nothing_was_measured(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    assert "No figure has been measured on a GPU yet" in report(tmp_path, page)


def test_runs_become_a_table_and_a_plot(tmp_path: Path) -> None:
    for streams, p99, kept_up in ((10, 40.25, True), (20, 99.5, False)):
        run = {**RUN, "streams": streams, "step_ms_p99": p99, "kept_up": kept_up}
        (tmp_path / f"{streams}.json").write_text(json.dumps(run))
    (tmp_path / "cpu.json").write_text(json.dumps({**RUN, "gpu": None, "streams": 1, "step_ms_p99": 1.0}))
    (tmp_path / "checks.json").write_text(json.dumps({"kernels": {}}))
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    text = report(tmp_path, page)
    assert "### A GPU, weights bf16, cache fp8, 2026-01-01" in text
    assert "10 streams kept up" in text
    assert "| 10 | 10.0 | 20.0 | 40.25 | 90.5 | – | yes |" in text
    assert "| 20 | 10.0 | 20.0 | 99.5 | 90.5 | – | no |" in text
    assert "50% of the rate of a copy" in text
    assert "carries 7 streams" in text
    assert "No figure" not in text
    (plot,) = (tmp_path / "plots").glob("*.svg")
    assert plot.name in text
    assert report(tmp_path, page) == text, "made twice, it is the same"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_script_for_the_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_run.py"), "--quick", "--results", str(tmp_path)]
    subprocess.run(command, check=True, timeout=290)
    files = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    loads = [content for content in files if "step_ms_p99" in content]
    assert sorted((load["streams"], load["kv_dtype"]) for load in loads) == [(1, "f32"), (3, "f32"), (3, "fp8")]
    (checks,) = (content for content in files if "agreement" in content)
    assert not any("failed" in stage for name, stage in checks.items() if isinstance(stage, dict) and name != "moshi")
    assert checks["agreement"]["agreement"]["f16"]["same_token"] > 0.9

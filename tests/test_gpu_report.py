"""The page with the GPU's figures is written from the kept result files only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOAD = {
    "gpu": "A GPU",
    "driver": "1.2",
    "torch": "2.11",
    "commit": "abc",
    "command": "python benchmarks/gpu_figures.py",
    "model": "random:1b",
    "weights_dtype": "bf16",
    "kv_dtype": "fp8",
    "context_frames": 750,
    "bytes_per_stream": 100 * 2**20,
    "bytes_per_stream_measured": 105 * 2**20,
    "step_ms_p50": 10.0,
    "step_ms_p95": 20.0,
    "frame_to_token_ms_p50": 50.5,
    "frame_to_token_ms_p95": 70.5,
    "frame_to_token_ms_p99": 90.5,
    "flush_ms_p50_idle": 25.0,
    "flush_ms_p99_idle": 30.0,
    "flush_ms_p50_loaded": 44.0,
    "flush_ms_p99_loaded": None,
    "flushes": 36,
    "batch1_step_ms": 3.0,
    "attention_rows": 512,
    "attention_gbps": 2000.0,
    "copy_gbps": 4000.0,
    "attention_copy_rate_share": 0.5,
}


def item(stage: str, name: str, **values: object) -> dict[str, object]:
    return {"record": "item", "stage": stage, "item": name, "ok": True, "values": values}


def write_run(folder: Path, name: str, items: list[dict[str, object]], *, quick: bool = False) -> None:
    about = {"record": "run", "script": "figures", "date": "2026-01-01", "commit": None, "quick": quick}
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in (about, *items)))


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


def test_page_matches_the_kept_results(tmp_path: Path) -> None:
    kept = ROOT / "docs" / "gpu.md"
    page = tmp_path / "gpu.md"
    page.write_text(kept.read_text())
    assert report(ROOT / "benchmarks" / "results", page) == kept.read_text()


def test_page_without_a_run(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    assert "No figure has been measured on a GPU yet" in report(tmp_path, page)


def test_page_has_tables_and_a_plot(tmp_path: Path) -> None:
    loads = [
        item("loads", f"{streams} streams", **LOAD, streams=streams, step_ms_p99=p99, kept_up=kept_up)
        for streams, p99, kept_up in ((20, 99.5, False), (10, 40.25, True))
    ]
    flushes = {**LOAD, "flush_ms_p99_loaded": 61.5, "streams": 9, "step_ms_p99": 39.0, "kept_up": True}
    others = [
        item("loads", "90 % load: 9 streams", **flushes),
        item(
            "loads",
            "sustained",
            sustained_streams=10,
            dollars_per_stream_hour=0.395,
            gpu_dollars_per_hour=3.95,
            prices_as_of="2026-10",
        ),
        item("moshi", "carried", moshi_streams=7, moshi_step_ms_p99=70.0, compiled=True),
        item("agreement", "f32", frames=100),
        item("agreement", "bf16", same_token=0.94, logits_error=0.017),
        item("exactness", "eager steps", streams=6, tokens=200),
        item("exactness", "graphs and eager steps", streams_differing=0, first_place=None, gap_there=0.0),
        item("exactness", "a CPU and eager steps", streams_differing=1, first_place=12, gap_there=1e-5),
    ]
    write_run(tmp_path, "gpu-figures-1.jsonl", [*loads, *others])
    slow = {**LOAD, "streams": 1, "step_ms_p99": 1.0, "kept_up": True}
    write_run(tmp_path, "gpu-figures-2.jsonl", [item("loads", "1 streams", **{**slow, "gpu": None})])
    write_run(tmp_path, "gpu-figures-3.jsonl", [item("loads", "1 streams", **slow)], quick=True)
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    text = report(tmp_path, page)
    assert "### A GPU, weights bf16, cache fp8, 2026-01-01" in text
    assert "10 streams kept up" in text
    assert "| 10 | 10.0 | 20.0 | 40.25 | 50.5 | 70.5 | 90.5 | 44.0 | – | yes |" in text
    assert "| 20 | 10.0 | 20.0 | 99.5 | 50.5 | 70.5 | 90.5 | 44.0 | – | no |" in text
    assert "\n| 1 |" not in text, "runs on a CPU and quick runs are left out"
    assert "At 90 % load (9 streams) a flush takes 44.0 ms (p50), 61.5 ms (p99)" in text
    assert "100.0 MiB as computed, and 105.0 MiB as measured" in text
    assert "50% of the rate of a copy" in text
    assert "A stream costs $0.39500 an hour" in text
    assert "loop, with its compilation, carries 7 streams" in text
    assert "| bf16 | 94.0% | 0.017 |" in text
    assert "| graphs and eager steps | 0 | – | – |" in text
    assert "| a CPU and eager steps | 1 | 12 | 1e-05 |" in text
    assert "No figure" not in text
    (plot,) = (tmp_path / "plots").glob("*.svg")
    assert plot.name in text
    assert report(tmp_path, page) == text, "a second run writes the same page"

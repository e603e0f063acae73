"""`tympan bench engine` and `benchmarks/sustained_streams.py`, with the tiny model on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.counting import COUNTING_INFO, CountingRunner
from sustained.live import TICKS, LiveLoad, LiveRun
from sustained.moshi_loop import build_moshi, largest_batch

from tympan.config import ModelSettings
from tympan.engine.batching.engine import BatchedEngine
from tympan.engine.batching.scheduler import Row
from tympan.engine.batching.step import StepResult
from tympan.engine.kyutai.capacity import full_context_rows
from tympan.engine.kyutai.loader import load_runner
from tympan.models.checkpoints.load import open_checkpoint

# A bare GPU machine has numpy, torch, triton, safetensors, sentencepiece, and msgspec.
LACKS = {"av", "soxr", "rich", "websockets", "fastapi", "starlette", "uvicorn", "prometheus_client", "transformers"}
LACKS |= {"huggingface_hub", "ctranslate2", "faster_whisper", "sounddevice", "moshi"}
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"no {{name}} here", name=name)
sys.meta_path.insert(0, Blocker())
from tympan.cli.main import main
sys.exit(main({arguments!r}))
"""
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FIELDS = {
    *("gpu", "driver", "torch", "commit", "command", "model", "weights_dtype", "kv_dtype", "context_frames", "streams"),
    *("step_ms_p50", "step_ms_p95", "step_ms_p99", "frame_to_token_ms_p99", "flush_ms_p99_idle", "flush_ms_p99_loaded"),
    *("batch1_step_ms", "attention_copy_rate_share"),
}


def bench(*arguments: str) -> dict[str, object]:
    """Return the last line of `tympan bench engine`, in a process with the packages of a bare GPU machine."""
    code = BLOCKED.format(blocked=LACKS, arguments=["bench", "engine", *arguments])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stderr
    last: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return last


@pytest.mark.long
@pytest.mark.timeout(120)
def test_sustained_streams() -> None:
    tiny = ("--model", "random:tiny", "--device", "cpu", "--dtype", "f32", "--kv-dtype", "fp8")
    command = (sys.executable, str(BENCHMARKS / "sustained_streams.py"), "1,3", "--seconds", "1.5", *tiny)
    result = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout.splitlines()[-1])["runs"]
    assert [run["streams"] for run in runs] == [1, 3]
    for run in runs:
        assert run.keys() >= FIELDS
        assert run["kv_dtype"] == "fp8"
        assert 0 < run["step_ms_p50"] <= run["step_ms_p95"] <= run["step_ms_p99"]
        assert run["frame_to_token_ms_p50"] > 0
        assert run["steps"] > 10


@pytest.mark.timeout(120)
def test_engine_on_a_bare_machine() -> None:
    report = bench("--model", "random:tiny", "--device", "cpu", "--dtype", "f32", "--streams", "1,2", "--steps", "3")
    rows = report["rows"]
    assert isinstance(rows, list)
    assert [row["streams"] for row in rows] == [1, 2]


async def test_live_load() -> None:
    runner = CountingRunner(slots=20)
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    load = LiveLoad(streams=20, seconds=2.0, life=1.0, flush_every=0.05, warm_up=0.2)
    figures = await LiveRun(engine, load).run()
    await engine.stop()

    assert figures.rows_max < 20, "phases are spread: no batch has them all"
    assert figures.steps > 2.0 / COUNTING_INFO.frame_seconds * TICKS / 10
    assert figures.starts > 30
    assert figures.flushes > 20
    assert figures.flush_ms_p99 is not None
    assert figures.kept_up
    assert engine.active == 0


async def test_live_load_on_a_slow_engine() -> None:
    class SlowRunner(CountingRunner):
        def launch(self, rows: Sequence[Row]) -> StepResult:
            time.sleep(0.1)
            return super().launch(rows)

    runner = SlowRunner(slots=2)
    engine = BatchedEngine(lambda: runner)
    await engine.start()
    figures = await LiveRun(engine, LiveLoad(streams=2, seconds=1.0, warm_up=0.1)).run()
    await engine.stop()
    assert not figures.kept_up
    assert figures.step_ms_p50 >= 100


def test_full_context_rows() -> None:
    runner = load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="f32", max_streams=2))
    rows = full_context_rows(runner, 2)
    runner.launch(rows)
    context = runner.program.ring.capacity
    assert (runner.program._lm_state.position > context).all()
    assert np.isfinite(runner.program.results.numpy()).all()


@pytest.mark.parametrize(("per_row", "expected"), [(0.05, (1000, 1024)), (1.0, (60, 79)), (100.0, (0, 0))])
def test_largest_batch(per_row: float, expected: tuple[int, int]) -> None:
    streams, milliseconds = largest_batch(lambda batch: batch * per_row, most=1024)
    assert expected[0] <= streams <= expected[1]
    assert milliseconds < 80


def test_moshi_weights() -> None:
    pytest.importorskip("moshi")
    lm = open_checkpoint("random:tiny").lm(dtype=torch.float32)
    reference = build_moshi(lm, torch.device("cpu"))
    assert torch.equal(reference.text_linear.weight, lm.text_linear.weight)
    assert torch.equal(reference.emb[3].weight, lm.embedding[3 * 65 : 4 * 65])

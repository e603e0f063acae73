"""`tympan bench start`: a cold process, timed from outside it; and the folder that a random model is written to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_bench import BLOCKED, LACKS

from tympan.bench.disk import write_checkpoint
from tympan.bench.start import TOTAL
from tympan.errors import ModelError
from tympan.models.checkpoints.load import open_checkpoint


def bench_start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tympan", "bench", "start", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.timeout(120)
def test_stages_and_runs_add_up() -> None:
    result = bench_start(
        "--model", "random:tiny", "--device", "cpu", "--dtype", "f32", "--max-streams", "1", "--runs=2"
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["from_files"]
    assert len(report["runs"]) == 2
    stages = ["interpreter", "imports", "weights", "quantisation", "state", "warm-up"]
    assert list(report["median"]) == [*stages, "rest of the start", "first frame", "first words", TOTAL]
    for run in report["runs"]:
        total = run.pop(TOTAL)
        assert total == pytest.approx(sum(run.values()), abs=0.3), "nothing long is left out"
        assert run["imports"] > 0.1, "torch is imported by the process that is timed"
    assert "to the first words" in result.stdout


@pytest.mark.timeout(120)
def test_the_embedded_recognizer_needs_no_torch() -> None:
    code = BLOCKED.format(
        blocked=(LACKS - {"pocketsphinx"}) | {"torch"},
        arguments=["bench", "start", "--model", "embedded", "--max-streams", "1", "--runs", "1"],
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["median"]["first words"] > 0
    assert report["median"]["imports"] < 0.5


def test_what_cannot_be_loaded_is_one_sentence() -> None:
    result = bench_start("--model", "/nowhere", "--runs", "1")
    assert result.returncode == 2
    assert "/nowhere is neither a local folder nor a repository" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_written_model_is_the_random_one(tmp_path: Path) -> None:
    write_checkpoint("random:tiny", tmp_path)
    drawn, read = open_checkpoint("random:tiny"), open_checkpoint(str(tmp_path))
    assert drawn.config == read.config
    for ours, theirs in ((drawn.lm(), read.lm()), (drawn.mimi(), read.mimi())):
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(theirs.get_parameter(name), parameter, rtol=1e-6, atol=1e-6)
    assert read.tokenizer_file() == tmp_path / "tokenizer.json"


def test_other_models_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model random:huge"):
        write_checkpoint("random:huge", tmp_path)

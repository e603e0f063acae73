"""`benchmarks/cold_start.py`: a cold process, timed by its parent; the checkpoint of a random model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cold_start import TOTAL
from random_checkpoint import write_checkpoint

from tympan.errors import ModelError
from tympan.models.checkpoints.load import open_checkpoint

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "cold_start.py"


def cold_start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, str(SCRIPT), *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.timeout(120)
def test_stages_add_up() -> None:
    result = cold_start("--model", "random:tiny", "--device", "cpu", "--dtype", "f32", "--max-streams", "1", "--runs=2")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["from_files"]
    assert len(report["runs"]) == 2
    stages = ["interpreter", "imports", "files", "weights", "quantisation", "state", "warm-up"]
    assert list(report["median"]) == [*stages, "rest of the start", "first frame", "first words", TOTAL]
    for run in report["runs"]:
        total = run.pop(TOTAL)
        # A share, not a difference: other processes interrupt the stages as often as the time between them.
        assert 0.8 * total <= sum(run.values()) <= total + 0.01, "the stages cover the time to the first words"
        assert run["imports"] > 0.1, "torch is imported by the process that is timed"
    assert "to the first words" in result.stdout


@pytest.mark.timeout(120)
def test_embedded_model_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "fastapi"):
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package} here', name='{package}')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    result = cold_start("--model", "embedded", "--max-streams", "1", "--runs", "1")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["median"]["first words"] > 0
    assert report["median"]["imports"] < 0.5


def test_missing_model() -> None:
    result = cold_start("--model", "/nowhere", "--runs", "1")
    assert result.returncode == 2
    assert "/nowhere is neither a local folder nor a repository" in result.stderr
    assert "Traceback" not in result.stderr


def test_checkpoint_of_a_random_model(tmp_path: Path) -> None:
    write_checkpoint("random:tiny", tmp_path)
    drawn, read = open_checkpoint("random:tiny"), open_checkpoint(str(tmp_path))
    assert drawn.config == read.config
    for ours, theirs in ((drawn.lm(), read.lm()), (drawn.mimi(), read.mimi())):
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(theirs.get_parameter(name), parameter, rtol=1e-6, atol=1e-6)
    assert read.tokenizer_file() == tmp_path / "tokenizer.json"


def test_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model random:huge"):
        write_checkpoint("random:huge", tmp_path)

"""The trial of Triton on a GPU, and the consequences of a failure."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tympan.models import kernels

TRIAL = "tympan.models.kernels.trial"
ALONE = """
import sys
import torch
from tympan.models import kernels
assert not kernels.usable(torch.device("cpu"))
"""


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU as PyTorch describes it, and an installed Triton."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    kernels.usable.cache_clear()
    yield
    kernels.usable.cache_clear()


def launches(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[torch.device]:
    """Replace the trial by a stub, and return the list of devices for which it is called."""
    seen: list[torch.device] = []

    def launch(device: torch.device) -> None:
        seen.append(device)
        if error is not None:
            raise error

    monkeypatch.setitem(sys.modules, TRIAL, SimpleNamespace(launch=launch))  # type: ignore[arg-type]
    return seen


def run(code: str, **variables: str) -> None:
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **variables}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr


def test_one_trial_per_gpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seen = launches(monkeypatch)
    assert all(kernels.usable(torch.device(name)) for name in ("cuda", "cuda:0", "cuda", "cuda:0"))
    assert seen == [torch.device("cuda:0")]
    assert not caplog.records


NO_COMPILER = RuntimeError("Failed to find C compiler. Please specify via CC environment variable or …")
GCC_FAILED = subprocess.CalledProcessError(1, ["gcc", "main.c"])


@pytest.mark.parametrize(
    ("error", "header", "cause"),
    [
        (NO_COMPILER, True, "no C compiler"),
        (GCC_FAILED, False, r"no Python\.h \(install python3-dev\)"),
        (GCC_FAILED, True, "CalledProcessError: Command '.'gcc', 'main.c'.' returned non-zero exit status 1"),
        (
            RuntimeError("Triton Error [CUDA]: device kernel image is invalid\nmore"),
            True,
            "RuntimeError: .* is invalid$",
        ),
        (AttributeError("module 'triton' has no attribute 'knobs'"), True, "AttributeError: .* 'knobs'"),
        (PermissionError(13, "Permission denied", "/root/.triton"), True, "PermissionError: .*Permission denied"),
        (ValueError(), True, "ValueError: $"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_failed_trial_logs_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, header: bool, cause: str
) -> None:
    seen = launches(monkeypatch, error)
    monkeypatch.setattr(kernels, "_has_python_header", lambda: header, raising=False)
    assert not any(kernels.usable(torch.device(name)) for name in ("cuda", "cuda:0", "cuda", "cuda:0"))
    assert len(seen) == 1
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(cause, record.message)


def test_triton_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, TRIAL, None)  # type: ignore[arg-type]
    assert not kernels.usable(torch.device("cuda"))
    assert "ModuleNotFoundError" in caplog.text


def test_missing_requirements(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seen = launches(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert not kernels.usable(torch.device("cuda:0"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not kernels.usable(torch.device("cuda:1"))
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "the GPU has compute capability 7.5, but Triton needs 8.0 or later",
        "Triton is not installed",
    ]
    assert not seen


def test_cpu_does_not_import_triton() -> None:
    run(ALONE + "assert 'triton' not in sys.modules")


def test_triton_without_knobs(tmp_path: Path) -> None:
    """PyTorch 2.6 and 2.7 bring one. They are not supported, but a CPU serves with them."""
    (tmp_path / "triton.py").write_text("jit = None\n")
    run("import triton\n" + ALONE, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))


def test_python_header_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda *arguments: str(tmp_path))
    assert not kernels._has_python_header()
    (tmp_path / "Python.h").touch()
    assert kernels._has_python_header()

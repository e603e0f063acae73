"""The kernel that shows whether Triton works."""

from __future__ import annotations

import kernel_interpreter  # noqa: F401  (before anything that imports Triton)
import pytest
import torch

from tympan.models.kernels import trial


def test_a_working_triton_passes_and_keeps_fused_multiply_adds() -> None:
    trial.launch(torch.device("cpu"))
    assert trial.triton.knobs.language.default_fp_fusion


def test_a_kernel_that_does_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_add_one", {(1,): lambda x, **options: None})
    with pytest.raises(RuntimeError, match="wrong result"):
        trial.launch(torch.device("cpu"))

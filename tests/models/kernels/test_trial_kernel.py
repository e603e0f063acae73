"""The kernel that finds out whether Triton works."""

from __future__ import annotations

import pytest
import torch

from tympan.models.kernels import trial


def test_trial_enables_fused_multiply_adds() -> None:
    trial.launch(torch.device("cpu"))
    assert trial.triton.knobs.language.default_fp_fusion


def test_trial_detects_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_add_one", {(1,): lambda x, **options: None})
    with pytest.raises(RuntimeError, match="wrong result"):
        trial.launch(torch.device("cpu"))

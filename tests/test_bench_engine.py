"""`tympan bench engine` on a device that records steps as a GPU does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.recorded import CapturingDevice

from tympan.bench.engine import measure_engine
from tympan.config import ModelSettings
from tympan.engine.kyutai import loader


@pytest.mark.usefixtures("one_thread")
def test_halves_of_a_step_are_recorded_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The language model reads the codes of the replayed codec, not those that recording left in the buffer."""
    without_runtime = SimpleNamespace(run_mimi_on_cpu=lambda mimi: None, run_lm_on_cpu=lambda lm, *arguments: None)
    monkeypatch.setattr(loader, "cpu_networks", lambda: without_runtime)  # as on a GPU, PyTorch computes everything
    settings = ModelSettings(model="random:tiny", device="cpu", dtype="f32")
    report = measure_engine(settings, [1, 3], steps=2, recorder=CapturingDevice())
    assert [row.streams for row in report.rows] == [1, 3]
    assert all(row.step_ms_p50 > 0 for row in report.rows)

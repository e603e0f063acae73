"""The data type that `tympan bench engine` recommends for a CPU, and where it is shown."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tympan.cli.main import main
from tympan.config import ModelSettings
from tympan.engine.kyutai.loader import load_runner
from tympan.engine.kyutai.recommendation import StepTimes, store, stored
from tympan.models.checkpoints.randomized import PRESETS

TINY = PRESETS["tiny"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("times", "recommended"),
    [
        ({"int8": 70.0, "int4": 40.0}, "int8"),
        ({"int8": 81.0, "int4": 79.0}, "int4"),
        ({"int8": 120.0, "int4": 100.0}, "int4"),
        ({"int8": 120.0, "int4": 130.0}, "int8"),
    ],
)
def test_most_precise_type_in_real_time(times: dict[str, float], recommended: str) -> None:
    assert StepTimes(times).recommended == recommended


def test_stored_per_architecture() -> None:
    assert stored(TINY) is None
    store(TINY, {"int8": 90.0, "int4": 60.0})
    assert stored(TINY) == StepTimes({"int8": 90.0, "int4": 60.0})
    assert stored(PRESETS["1b"]) is None


def test_start_and_doctor_show_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    store(TINY, {"int8": 90.0, "int4": 60.0})
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "tympan"):
        load_runner(ModelSettings(model="random:tiny", device="cpu", dtype="int8", max_streams=1))
    assert "--dtype int4 is recommended" in caplog.text
    main(["doctor", "--model", "random:tiny", "--device", "cpu", "--dtype", "int8", "--port", "0"])
    assert "--dtype int4 is recommended" in capsys.readouterr().out


@pytest.mark.timeout(120)
def test_bench_measures_and_recommends(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "random:tiny", "--device", "cpu", "--streams", "1,2", "--steps", "3"]
    assert main(["bench", "engine", *arguments]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [report["dtype"] for report in last["reports"]] == ["int8", "int4"]
    assert [row["streams"] for row in last["reports"][0]["rows"]] == [1, 2]
    measured = stored(TINY)
    assert measured is not None
    assert last["recommendation"] == str(measured)
    assert measured.p99_ms == {report["dtype"]: report["rows"][0]["step_ms_p99"] for report in last["reports"]}

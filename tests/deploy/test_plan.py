"""`tympan plan`: figures that follow from their inputs, and errors that name the wrong option."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

import pytest

from tympan.cli.main import main
from tympan.config import DeploySettings
from tympan.deploy.capacity import MODELS, capacity, estimate, gpu_of_device, read_runs
from tympan.deploy.costs import Demand, choices, rule_of_thumb
from tympan.deploy.prices import GPUS, container_dollars_per_second
from tympan.deploy.processes import BUSY_SHARE, ENGINE_MS, FRONT_MS, streams_of
from tympan.errors import ConfigError

ONE_B = MODELS["1b"]
DEFAULTS = DeploySettings()


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["plan", "--json", *arguments]) == 0
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    return report


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("size", MODELS)
def test_sizes_equal_the_models(size: str) -> None:
    torch = pytest.importorskip("torch")
    from tympan.models.checkpoints.checkpoint import describe
    from tympan.models.checkpoints.load import open_checkpoint
    from tympan.models.lm import LM

    checkpoint, model = open_checkpoint(f"random:{size}"), MODELS[size]
    described = describe(checkpoint, dtype=torch.bfloat16)
    with torch.device("meta"):
        embeddings = LM(checkpoint.config.lm).embedding.numel() * 2
    assert model.stored == described.lm_bytes + described.mimi_bytes
    assert model.read_per_step == model.stored - embeddings
    assert model.cache_per_stream == described.lm_stream_bytes
    assert model.codec_per_stream == described.mimi_stream_bytes


def test_estimate_reproduces_the_published_load() -> None:
    """64 streams on an L40S took 80/3 ms, so four fifths of 80 ms suffice for 2.4 times the bytes."""
    bytes_of_64 = ONE_B.read_per_step + 64 * ONE_B.per_stream("bf16")
    streams = (2.4 * bytes_of_64 - ONE_B.read_per_step) / ONE_B.per_stream("bf16")
    assert estimate(GPUS["L40S"], ONE_B, "bf16").streams == pytest.approx(streams, rel=0.02)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
def test_estimate_fits_memory_and_time(gpu: object) -> None:
    card = GPUS[gpu.name]  # type: ignore[attr-defined]
    found = estimate(card, ONE_B, "bf16")
    assert found.basis == "estimate"
    assert found.streams > 0
    assert ONE_B.stored + found.streams * ONE_B.per_stream("bf16") < card.memory_bytes
    assert found.streams < estimate(card, ONE_B, "fp8").streams
    assert found.streams > estimate(card, MODELS["2.6b"], "bf16").streams


@pytest.mark.parametrize("streams", [1, 10, 64, 1000, 100_000])
def test_figures_follow_from_their_inputs(streams: int) -> None:
    for row in choices(Demand(streams), GPUS, ONE_B, "bf16", DEFAULTS, ()):
        assert row.containers == ceil(streams / row.container_target_streams)
        hour = row.containers * 3600 * container_dollars_per_second(GPUS[row.gpu], DEFAULTS)
        assert row.dollars_per_hour == pytest.approx(hour, abs=0.01)
        assert row.dollars_per_stream_hour == row.dollars_per_audio_hour == pytest.approx(hour / streams, abs=1e-5)
        assert row.headroom == pytest.approx(1 - streams / (row.containers * row.container_max_streams), abs=1e-3)
        assert streams <= row.containers * row.container_target_streams


def test_container_costs_the_list_price() -> None:
    # 0.000542 + 4 × 0.0000131 + 32 × 0.00000222 dollars per second
    assert 3600 * container_dollars_per_second(GPUS["L40S"], DEFAULTS) == pytest.approx(2.3956, abs=1e-4)
    assert rule_of_thumb(Demand(64), DEFAULTS).containers == 7


def test_choices_are_cheapest_first() -> None:
    rows = choices(Demand(100, audio_hours=240), GPUS, ONE_B, "bf16", DEFAULTS, ())
    assert [row.dollars_per_hour for row in rows] == sorted(row.dollars_per_hour for row in rows)
    assert rows[0].dollars_per_audio_hour == pytest.approx(10 * rows[0].dollars_per_stream_hour, rel=1e-2)


def measured(folder: Path, streams: int, p99: float, kept_up: bool = True, **given: object) -> None:
    fields = {
        "gpu": "NVIDIA H100 80GB HBM3",
        "model": "random:1b",
        "weights_dtype": "bf16",
        "kv_dtype": "bf16",
        "streams": streams,
        "step_ms_p99": p99,
        "kept_up": kept_up,
    }
    (folder / f"{streams}-{p99}.json").write_text(json.dumps({**fields, **given}))


def test_measured_load_replaces_the_estimate(tmp_path: Path) -> None:
    measured(tmp_path, 300, 40.0)
    measured(tmp_path, 500, 61.0)
    measured(tmp_path, 520, 70.0, kept_up=False)
    measured(tmp_path, 600, 85.0)  # longer than a frame, although it claims to have kept up
    measured(tmp_path, 700, 50.0, kv_dtype="fp8")
    measured(tmp_path, 800, 50.0, gpu=None)
    (tmp_path / "checks.json").write_text('{"date": "2026-11-24"}')
    runs = read_runs(tmp_path)
    found = capacity(GPUS["H100"], ONE_B, "bf16", runs)
    assert (found.streams, found.basis) == (500, "measured")
    assert "500-61.0.json" in found.inputs[0]
    assert capacity(GPUS["H100"], ONE_B, "fp8", runs).streams == 700
    assert capacity(GPUS["L40S"], ONE_B, "bf16", runs).basis == "estimate"
    assert capacity(GPUS["H100"], MODELS["2.6b"], "bf16", runs).basis == "estimate"


def test_gpu_that_never_kept_up_is_left_out(tmp_path: Path) -> None:
    measured(tmp_path, 64, 90.0)
    rows = choices(Demand(10), GPUS, ONE_B, "bf16", DEFAULTS, read_runs(tmp_path))
    assert "H100" not in [row.gpu for row in rows]


def test_broken_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"step_ms_p99": 3, "gpu": "H100"}')
    with pytest.raises(ConfigError, match=r"half\.json"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_gpu_of_device(device: str, name: str | None) -> None:
    assert gpu_of_device(device) == name


def test_settings_override_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    report = plan(
        capsys, "--streams", "24", "--gpu", "l40s", "--container-max-streams", "12", "--container-target-streams", "10"
    )
    (row,) = report["choices"]  # type: ignore[misc]
    assert (row["container_max_streams"], row["container_target_streams"], row["containers"], row["basis"]) == (
        12,
        10,
        3,
        "given",
    )


@pytest.mark.parametrize("streams", [1, 400, 2000])
def test_processes_of_a_container(capsys: pytest.CaptureFixture[str], streams: int) -> None:
    """No front is busier than its share of a core, and one front less would be."""
    arguments = ("--gpu", "H100", "--container-max-streams", str(streams), "--container-cpu", "64")
    (row,) = plan(capsys, "--streams", "1", *arguments)["choices"]  # type: ignore[misc]
    busy = streams * FRONT_MS / 1000
    assert busy <= row["fronts"] * BUSY_SHARE
    assert row["fronts"] == 1 or busy > (row["fronts"] - 1) * BUSY_SHARE
    assert row["engine_processes"] == 1
    assert row["cores"] == pytest.approx(streams * (FRONT_MS + ENGINE_MS) / 1000 / BUSY_SHARE, abs=0.1)


def test_cores_limit_streams(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--streams", "100", "--gpu", "H100")
    (row,) = plan(capsys, *arguments, "--container-cpu", "0.5")["choices"]  # type: ignore[misc]
    assert row["limit"] == "cores"
    assert row["container_max_streams"] == streams_of(0.5)
    assert row["cores"] <= 0.5
    (row,) = plan(capsys, *arguments, "--container-cpu", "64")["choices"]  # type: ignore[misc]
    assert row["limit"] != "cores"


def test_explain_prints_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--streams", "64", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "{" not in out, "JSON is printed with --json only"
    for row in plan(capsys, "--streams", "64")["choices"]:  # type: ignore[attr-defined]
        assert all(line in out for line in row["inputs"])


def test_trace_from_a_file_is_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "day.csv"
    file.write_text("arrival,duration\n100,10\n0,50\n20,50\n")
    report = plan(capsys, "--trace", str(file), "--gpu", "L40S", "--min-containers", "1", "--buffer-containers", "0")
    assert report["streams"] == 2
    day = report["day"]
    assert (day["on_time"], day["refused"], day["container_seconds"]) == (3, 0, 110)  # type: ignore[index]
    price = container_dollars_per_second(GPUS["L40S"], DEFAULTS)
    assert day["dollars"] == pytest.approx(110 * price)  # type: ignore[index]


def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plan(capsys, "--trace", "synthetic", "--streams", "500", "--plot", str(tmp_path / "day.png"))
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")
    assert "cannot write the plot" in refusal(
        capsys, "--trace", "synthetic", "--streams", "5", "--plot", str(tmp_path / "day.nonsense")
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--streams or --trace is required"),
        (("--streams", "0"), "invalid --streams '0': expected at least 1"),
        (("--streams", "5", "--gpu", "NOSUCH"), "unknown GPU 'NOSUCH': expected one of L4"),
        (("--streams", "5", "--gpu", "H10"), "; did you mean H100?"),
        (("--streams", "5", "--audio-hours", "0"), "invalid --audio-hours '0': expected above 0 and at most 120"),
        (("--streams", "5", "--plot", "x.png"), "add --trace"),
        (("--trace", "synthetic"), "needs --streams"),
        (("--trace", "synthetic", "--streams", "100001"), "1 to 100,000 streams"),
        (("--trace", "nothing.csv"), "cannot read the trace nothing.csv"),
        (("--trace", "nothing.csv", "--streams", "5"), "leave one out"),
        (
            ("--streams", "5", "--container-target-streams", "20", "--container-max-streams", "10"),
            "container_target_streams is 20",
        ),
        (("--streams", "5", "--trace", "synthetic", "--min-containers", "11"), "is above max_containers"),
        (("--streams", "5", "--cold-start", "-1"), "invalid --cold-start '-1': expected seconds"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, *arguments)
    assert expected in error
    assert error.startswith("tympan: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start,length\n1,2\n", "must have the columns arrival and duration"),
        ("arrival,duration\n1,2\n1,x\n", "line 3 of"),
        ("arrival,duration\n1\n", "line 2 of"),
        ("arrival,duration\n1,0\n", "above zero"),
        ("arrival,duration\n-1,1\n", "must not be negative"),
        ("arrival,duration\n1,nan\n", "above zero"),
        ("arrival,duration\n", "1 to 100,000 streams"),
    ],
)
def test_wrong_trace_names_line(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert expected in refusal(capsys, "--trace", str(tmp_path / "t.csv"))

"""The commands about models themselves: `models`, `bench engine`, `transcribe --format tokens`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.speech import clip

from tympan.cli.main import main
from tympan.engine import catalogue
from tympan.engine.batching.scheduler import FINAL_FRAMES, MOST_EXTRA_FRAMES
from tympan.settings import ModelSettings

PRESET_NAMES = ("random:1b", "random:2.6b", "random:tiny")
TINY = ["--model", "random:tiny", "--device", "cpu", "--dtype", "f32"]


def test_tokens_of_every_frame(spoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *TINY, "--format", "tokens", str(spoken_file), str(spoken_file)]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())

    frames = -(-len(clip("counting").samples) * 3 // 2 // 1920)  # 16 kHz to 24 kHz, the last frame padded
    least = frames + 7 + FINAL_FRAMES  # the silence at the end
    assert least <= len(first["tokens"]) == len(first["pauses"]) <= least + MOST_EXTRA_FRAMES
    assert {len(probabilities) for probabilities in first["pauses"]} == {4}
    assert all(0 <= token < 256 for token in first["tokens"])
    assert len(set(first["tokens"])) > 5
    assert first["words"]
    assert second == first, "a slot keeps nothing of the file before"


@pytest.mark.parametrize("model", ["embedded", "scripted"])
def test_models_without_tokens(model: str, spoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--model", model, "--format", "tokens", str(spoken_file)]) == 2
    assert f"{model} has no tokens" in capsys.readouterr().err


def test_bench_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine", *TINY, "--streams", "1,3", "--steps", "3"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert (report["model"], report["dtype"], report["device"]) == ("random:tiny", "f32", "cpu")
    assert [row["streams"] for row in report["rows"]] == [1, 3]
    for row in report["rows"]:
        assert 0 < row["step_ms_p50"] <= row["step_ms_p99"]
        assert row["codec_ms_p50"] > 0
        assert row["lm_ms_p50"] > 0
        assert row["bytes_per_stream"] > 0
        assert row["realtime_streams"] >= 0


@pytest.mark.parametrize("streams", ["0", "x", "1,,2", ""])
def test_bench_engine_without_streams(streams: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine", *TINY, "--streams", streams]) == 2
    assert "--streams" in capsys.readouterr().err


def test_models_without_a_name_lists_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert f"{ModelSettings().model}  English and French, 0.5 s of delay, predicts pauses (default): needs a " in text
    assert "embedded                    the built-in recognizer: Whisper tiny.en on the CPU, English: ready" in text
    assert main(["models", "--json"]) == 0
    states = {line["name"]: line["state"] for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert states["embedded"] == states["scripted"] == "ready"
    assert states["whisper:base"] == "needs a download of 145 MB"
    assert set(states) >= set(PRESET_NAMES)


def test_a_downloaded_model_is_ready(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/cache/model.safetensors")
    assert main(["models"]) == 0
    assert "needs" not in capsys.readouterr().out


def test_models_names_the_extra_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_is_installed", lambda package: package != "torch")
    assert main(["models"]) == 0
    assert (
        "random:1b                   random weights of the architecture, for sizing: needs the extra torch (torch)"
        in (capsys.readouterr().out)
    )


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "random:1b", "random:2.6b"]) == 0
    sheets = capsys.readouterr().out
    assert "93.75 MiB cache" in sheets  # 2 x 16 layers x 2048 x 750 frames in bf16
    assert "4 pause heads" in sheets
    assert "no pause heads (turns from energy)" in sheets
    assert main(["models", "--json", "random:tiny"]) == 0
    tiny = json.loads(capsys.readouterr().out)
    assert (tiny["name"], tiny["codebooks"], tiny["delay_seconds"]) == ("random:tiny", 8, 0.5)
    assert tiny["stream_bytes"] == tiny["lm_stream_bytes"] + tiny["mimi_stream_bytes"]

"""`tympan transcribe`, with an engine of this process and with the real server."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from support.server import LiveServer
from support.speech import clip, word_error_rate

from tympan.cli.main import main
from tympan.cli.terminal import FileProgress
from tympan.engine.scripted import scripted_words

TEN = " ".join(f"word{number}" for number in range(10))
TWENTY = " ".join(f"word{number}" for number in range(10, 20))


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with LiveServer(model="scripted") as server:
        yield server.url("")


@pytest.fixture(params=["local", "remote"])
def where(request: pytest.FixtureRequest, scripted: str) -> list[str]:
    """The options that choose who transcribes."""
    return ["--model", "scripted"] if request.param == "local" else ["--url", scripted]


def test_text(where: list[str], silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *where, str(silent_file)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{TEN}\n{TWENTY}\n"
    assert output.err == ""


def test_json(where: list[str], silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *where, "--format", "json", str(silent_file)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["file", "model", "duration", "text", "words", "segments"]
    assert (result["file"], result["model"]) == (str(silent_file), "scripted")
    assert result["duration"] == pytest.approx(12.0, abs=0.01)
    assert result["text"] == f"{TEN} {TWENTY}"
    assert [word["start"] for word in result["words"]] == [word.start for word in scripted_words(150)]
    assert [segment["text"] for segment in result["segments"]] == [TEN, TWENTY]


def test_real_speech_locally(spoken_file: Path, tmp_path: Path) -> None:
    arguments = ["--model", "embedded", "--max-streams", "1", "--format", "vtt", "--output", str(tmp_path / "out")]
    assert main(["transcribe", *arguments, str(spoken_file)]) == 0
    lines = (tmp_path / "out" / "counting.vtt").read_text().splitlines()
    assert lines[0] == "WEBVTT"
    spoken = " ".join(line for line in lines[1:] if "-->" not in line)
    assert word_error_rate(clip("counting").text, spoken) <= 0.1


def test_several_files(silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.wav"
    shutil.copy(silent_file, other)
    assert main(["transcribe", "--model", "scripted", "--format", "json", str(silent_file), str(other)]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["file"] for result in results] == [str(silent_file), str(other)]


def test_failing_file(where: list[str], silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise, missing, folder = tmp_path / "noise.wav", tmp_path / "missing.wav", tmp_path / "folder.wav"
    noise.write_bytes(b"this is no audio" * 100)
    folder.mkdir()
    assert main(["transcribe", *where, *map(str, (noise, missing, folder, silent_file))]) == 1
    output = capsys.readouterr()
    assert output.out == f"{TEN}\n{TWENTY}\n"
    errors = output.err.splitlines()
    assert len(errors) == 3
    for error, path in zip(errors, (noise, missing, folder), strict=True):
        assert error.startswith(f"tympan: {path}: ")


def test_output_file_names(silent_file: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for path in ("talk.wav", "talk.wave", "b/other.wav"):
        shutil.copy(silent_file, tmp_path / path)
    inputs = [str(tmp_path / path) for path in ("talk.wav", "talk.wave", "b/other.wav")]
    out = tmp_path / "out"
    assert main(["transcribe", "--model", "scripted", "--format", "srt", "--output", str(out), *inputs]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["other.srt", "talk.wav.srt", "talk.wave.srt"]
    assert out.joinpath("other.srt").read_text().startswith("1\n00:00:00,000 --> ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "srt", "a.wav", "b.wav"], "several files as srt need --output DIR"),
        (["--output", "out", "a/talk.wav", "b/talk.wav"], "two inputs would both be written to talk.wav.txt"),
        (["--url", "ws://localhost:1", "--model", "scripted", "a.wav"], "leave one of them out"),
        (["--model", "grandiose", "a.wav"], "grandiose"),
    ],
)
def test_wrong_combinations(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_invalid_address(silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--url", "localhost:8000", str(silent_file)]) == 2
    assert "expected ws://host:port" in capsys.readouterr().err


def test_unreachable_server_is_reported_once(silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveServer(model="scripted") as server:
        url = server.url("")
    assert main(["transcribe", "--url", url, str(silent_file), str(silent_file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tympan: cannot reach 127.0.0.1:")
    assert error.count("\n") == 1


def test_a_key(
    silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    with LiveServer(model="scripted", api_keys=["secret"], host="127.0.0.1") as server:
        command = ["transcribe", "--url", server.url(""), str(silent_file)]
        assert main(command) == 2
        assert main([*command, "--token", "secret"]) == 0
        assert main([*command, "--token-file", str(file)]) == 0
        monkeypatch.setenv("TYMPAN_TOKEN", "secret")
        assert main(command) == 0
        assert main([*command, "--token", "wrong"]) == 2, "options override the environment"
    assert capsys.readouterr().out == f"{TEN}\n{TWENTY}\n" * 3


def test_token_file_errors(silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    command = ["transcribe", "--url", "ws://127.0.0.1:1", str(silent_file), "--token-file"]
    for name, message in (("empty", "is empty: expected an API key"), ("missing", "cannot read the API key in")):
        assert main([*command, str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_progress_bar() -> None:
    terminal, file = io.StringIO(), io.StringIO()
    for output, forced in ((terminal, True), (file, False)):
        console = Console(file=output, force_terminal=forced, width=100)
        with FileProgress("talk.mp3", 60.0, console) as progress:
            progress.update(30.0, 77)
    assert "talk.mp3" in terminal.getvalue()
    assert "77 words" in terminal.getvalue()
    assert "× real time" in terminal.getvalue()
    assert file.getvalue() == ""

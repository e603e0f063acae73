"""What `transcribe` writes: UTF-8, whole files, nothing that exists, and messages that name the right cause."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_silence

from tympan.cli.main import main

TEN = " ".join(f"word{number}" for number in range(10))
LOCAL = ("transcribe", "--model", "scripted:0")
COMMAND = (sys.executable, "-m", "tympan", *LOCAL)


def run(*arguments: str, stdout: int | None = subprocess.PIPE, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=environment, timeout=60, check=False
    )


def test_utf8_in_any_terminal(tmp_path: Path) -> None:
    file = write_silence(tmp_path / "дом €.wav", 6.0)
    result = run("--format", "json", str(file), str(tmp_path / "нет.wav"), PYTHONIOENCODING="cp1252")
    assert "дом €.wav" in result.stdout.decode("utf-8")
    assert "нет.wav: cannot be read" in result.stderr.decode("utf-8")
    assert b"Traceback" not in result.stderr


def test_file_name_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsencode(write_silence(tmp_path / "a.wav", 6.0).parent) + b"/caf\xe9.wav"
    os.rename(tmp_path / "a.wav", name)
    assert main([*LOCAL, "--output", str(tmp_path / "a.json"), os.fsdecode(name)]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["file"] == os.fsdecode(name)
    assert main([*LOCAL, "--format", "json", os.fsdecode(name)]) == 0
    assert "caf\\udce9.wav" in capsys.readouterr().out


def test_output_is_a_file(silent_file: Path, tmp_path: Path) -> None:
    for name, start in (("a.srt", "1\n00:00:00,000"), ("b.vtt", "WEBVTT"), ("c.json", '{"file"'), ("new/d.txt", TEN)):
        assert main([*LOCAL, "--output", str(tmp_path / name), str(silent_file)]) == 0
        assert (tmp_path / name).read_text().startswith(start)
    assert main([*LOCAL, "--format", "vtt", "--output", str(tmp_path / "e.txt"), str(silent_file)]) == 0
    assert (tmp_path / "e.txt").read_text().startswith("WEBVTT")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["a.srt", "b.vtt", "c.json", "new", "d.txt", "e.txt", silent_file.name]
    )


def test_two_inputs_and_one_file(silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LOCAL, "--output", str(tmp_path / "a.srt"), str(silent_file), str(silent_file)]) == 2
    assert "several files need a folder as --output" in capsys.readouterr().err


def test_nothing_is_overwritten(silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "silence.txt").write_text("precious")
    (tmp_path / "a.srt").write_text("precious")
    for output, target in ((tmp_path / "a.srt", "a.srt"), (tmp_path, "silence.txt")):
        assert main([*LOCAL, "--output", str(output), str(silent_file)]) == 2
        assert capsys.readouterr().err == f"tympan: {tmp_path / target} exists: use --force to overwrite it\n"
        assert (tmp_path / target).read_text() == "precious"
        assert main([*LOCAL, "--output", str(output), "--force", str(silent_file)]) == 0
        assert "word0" in (tmp_path / target).read_text()
        capsys.readouterr()


def test_input_is_never_the_output(silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LOCAL, "--output", str(silent_file), "--force", str(silent_file)]) == 2
    assert "is the input" in capsys.readouterr().err
    assert silent_file.read_bytes().startswith(b"RIFF")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", ["text", "json"])
def test_full_disk(form: str, silent_file: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = run("--format", form, str(silent_file), stdout=full.fileno())
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == b"tympan: standard output cannot be written: no space left on device"


def test_full_disk_of_a_file(silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LOCAL, "--output", "/dev/full", str(silent_file)]) == 2
    assert "tympan: /dev/full cannot be written: no space left on device\n" in capsys.readouterr().err


def test_full_disk_of_the_temporary_copy() -> None:
    """An MP4 with its index at its end, from a pipe, is copied; no file of this process may exceed 1 MiB."""
    data = b"\0\0\0\x10ftypisom\0\0\2\0" + (6 << 20).to_bytes(4, "big") + b"mdat" + bytes(6 << 20)
    result = subprocess.run(
        [*COMMAND, "-"],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert b"cannot be copied to a temporary file in" in result.stderr
    assert result.stderr.endswith(b": file too large\n")
    assert result.returncode == 1


def test_unwritable_folder_leaves_nothing(
    silent_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*LOCAL, "--output", str(tmp_path / "file" / "a.srt"), str(silent_file)]) == 2
    assert "file cannot be created: file exists" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_head_ends_it_quietly(form: str, tmp_path: Path) -> None:
    """The reader closes the pipe while more output follows than a pipe holds."""
    file = write_silence(tmp_path / "long.wav", 400.0)
    command = [*COMMAND, "--format", form, str(file), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        errors = [line for line in process.stderr.read().splitlines() if b"digital silence" not in line]
        assert (process.wait(60), errors) == (0, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n", "this is text, not audio"),
        (b"\0\0\0\x10ftypisom\0\0\2\0\0\0\0\x20mdat" + bytes(24), "the MP4 has no index (`moov`)"),
    ],
)
def test_messages(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "talk.mp4"
    file.write_bytes(content)
    assert main([*LOCAL, str(file)]) == 1
    assert message in capsys.readouterr().err

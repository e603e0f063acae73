"""The command line around the commands: help, exit codes, errors, and the real process."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tympan
from tympan.cli.main import COMMANDS, Command, _parser, main
from tympan.config import settings


class Trial(ModuleType):
    """A command that does what the test says."""

    error: BaseException | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--code", type=int, default=0)

    def run(self, arguments: argparse.Namespace) -> int:
        if self.error is not None:
            raise self.error
        return int(arguments.code)


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    module = Trial("tympan_trial_command")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "trial", Command(module.__name__, "a trial"))
    return module


def test_exit_code(trial: Trial) -> None:
    assert main(["trial"]) == 0
    assert main(["trial", "--code", "1"]) == 1


def test_expected_errors(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    trial.error = tympan.ConfigError("the port is no number")
    assert main(["trial"]) == 2
    assert capsys.readouterr().err == "tympan: the port is no number\n"


def test_unexpected_errors(trial: Trial, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    trial.error = ZeroDivisionError("ours")
    assert main(["trial"]) == 1
    assert "ZeroDivisionError: ours" in caplog.text


def test_an_interrupt(trial: Trial) -> None:
    trial.error = KeyboardInterrupt()
    assert main(["trial"]) == 130


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sing"], "unknown command 'sing'; the commands are: serve, transcribe, pull, "),
        (["trail"], "unknown command 'trail'; did you mean trial?"),
        (["trial", "--tempo"], "unknown option --tempo\n`tympan trial --help` lists the options"),
        (["trial", "--kode=1"], "unknown option --kode; did you mean --code?"),
        (["trial", "--code", "x"], "invalid --code 'x': expected a whole number"),
        (["trial", "more"], "unexpected argument 'more'"),
        (["serve", "--prot", "5"], "unknown option --prot; did you mean --port?"),
        (["serve", "--port", "x"], "invalid --port 'x': expected a whole number from 0 to 65535"),
        (["transcribe", "--format", "vt", "a"], "invalid --format 'vt': expected text, json, srt, vtt or tokens; did "),
        (["bench", "motor"], "unknown command 'motor'; the commands are: engine, load"),
        (["transcribe"], "the following arguments are required: FILE"),
        (["transcribe", "--model", "embeded", "a"], "unknown model 'embeded': expected a name that `tympan models` "),
        (["serve", "--model", "embeded"], "on the hub; did you mean embedded?"),
    ],
)
def test_wrong_usage(arguments: list[str], expected: str, trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("tympan: ")
    assert expected in error


def test_no_arguments_show_five_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    commands = re.findall(r"^  (tympan .*?)   ", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 5
    for line in commands:
        _, name, *arguments = line.split()
        assert _parser(name).parse_args([name, *arguments]).command == name


def test_help_of_serve_fits_on_one_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["serve", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert main(["serve", "--help-all"]) == 0
    everything = capsys.readouterr().out
    assert all(setting.flag in everything for setting in settings() if setting.section != "deploy")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: tympan {command}" in capsys.readouterr().out


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=50)


def test_python_m_tympan() -> None:
    done = python("-m", "tympan", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tympan {tympan.__version__}\n", "")


def test_help_imports_no_command() -> None:
    code = "import sys; from tympan.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    loaded = python("-c", code).stderr
    assert "tympan.cli.main" in loaded
    for module in ("numpy", "av", "websockets", "rich", "tympan.cli.transcribe", "tympan.config"):
        assert f"'{module}'" not in loaded


def test_closed_pipe(silent_file: Path) -> None:
    """As in `tympan transcribe … | head -0`: nobody reads what is written."""
    with subprocess.Popen(
        [sys.executable, "-m", "tympan", "transcribe", "--model", "scripted", str(silent_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(50) == 0

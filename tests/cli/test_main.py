"""The command line around the commands: help, exit codes, errors, and the real process."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tympan
from tympan.cli.main import COMMANDS, Command, main


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


@pytest.mark.parametrize("arguments", [[], ["sing"], ["trial", "--tempo"]])
def test_wrong_usage(arguments: list[str], trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: tympan" in capsys.readouterr().err


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

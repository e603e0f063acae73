"""The real `modal run` with a file: a stand-in for the platform connects the command and a real container."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest

pytest.importorskip("modal")

from modal_container import FILE, container
from support.modal_worker import Worker
from support.speech import clip, word_error_rate
from test_modal_deploy import ROOT

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]


def test_file_is_transcribed(tmp_path: Path) -> None:
    spoken = tmp_path / "counting.wav"
    with wave.open(str(spoken), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(clip("counting").pcm())
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "TYMPAN_"))}
    with Worker() as worker:
        settings = {"TYMPAN_MODEL": "embedded", "TYMPAN_SECRET_NAME": "", "TYMPAN_CONTAINER_CPU": "1"}
        command = [sys.executable, "-m", "modal", "run", "-q", "-m", "tympan.deploy.modal_app", "--file", str(spoken)]
        with subprocess.Popen(
            command,
            env={**ours, **worker.environment(), "PYTHONPATH": str(ROOT / "src"), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            worker.until_called("FunctionMap")
            with container(tmp_path, worker, FILE, worker):
                out, err = running.communicate(timeout=200)
    assert running.returncode == 0, out + err
    assert word_error_rate(clip("counting").text, out) <= 0.1

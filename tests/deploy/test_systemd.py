"""The systemd unit: valid, hardened, and with the times of the server's settings. It is not started."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tympan.config import LimitSettings

pytestmark = pytest.mark.deploy

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "tympan.service"
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 2.5  # of 10; 2.0 with systemd 252

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")


def settings() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(UNIT.read_text())
    return parser["Service"]


@needs_systemd
def test_unit_is_valid(tmp_path: Path) -> None:
    assert ANALYZE is not None
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT.read_text()))
    result = subprocess.run([ANALYZE, "verify", copy], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd
def test_unit_is_hardened() -> None:
    assert ANALYZE is not None
    command = [ANALYZE, "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", "--json=short", UNIT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert len(json.loads(result.stdout)) > 50


def test_unit_waits_for_open_streams() -> None:
    limits = LimitSettings()
    assert int(settings()["TimeoutStopSec"]) >= limits.drain_delay_seconds + limits.grace_seconds + 10


def test_unit_does_not_repeat_a_start_that_cannot_work() -> None:
    assert settings()["Restart"] == "always"
    assert settings()["RestartPreventExitStatus"] == "2"

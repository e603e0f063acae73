"""The audit of dependencies: findings, none, and no database are three things, whatever pip-audit's exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
FLAWED = {"name": "flawed", "version": "2.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "skipped", "skip_reason": "Dependency not found on PyPI and could not be audited: skipped (1.0)"}


@pytest.mark.parametrize(
    ("report", "theirs", "ours", "said"),
    [
        ([SOUND], 0, 0, "nothing is known against its 1 packages"),
        ([SOUND, FLAWED], 1, 1, "flawed 2.0: CVE-2026-1, fixed in 2.1"),
        ([SOUND, SKIPPED], 0, 3, "NOT AUDITED: skipped"),
        ([FLAWED, SKIPPED], 1, 1, "NOT AUDITED: skipped"),
        (None, 1, 3, "cannot reach the database: ConnectionError: nobody answers"),
    ],
)
def test_its_exit_code(tmp_path: Path, report: list[object] | None, theirs: int, ours: int, said: str) -> None:
    stand_in = tmp_path / "pip-audit"
    lines = [
        f"#!{sys.executable}",
        "import sys",
        "print('a trace\\nConnectionError: nobody answers', file=sys.stderr)",
        f"report = {json.dumps({'dependencies': report})!r}",
        "" if report is None else "open(sys.argv[sys.argv.index('--output') + 1], 'w').write(report)",
        f"sys.exit({theirs})",
    ]
    stand_in.write_text("\n".join(lines))
    stand_in.chmod(0o755)
    command = [sys.executable, str(SCRIPT), "--pip-audit", str(stand_in), "requirements.txt"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == ours
    assert said in result.stdout
    lenient = subprocess.run([*command, "--if-reachable"], capture_output=True, text=True, check=False)
    assert lenient.returncode == (0 if ours == 3 else ours)
    assert lenient.stdout == result.stdout

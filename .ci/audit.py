"""Known vulnerabilities in the pinned packages, by pip-audit and the OSV database.

Exit codes: 0 none are known, 1 there are some, 3 it cannot be said. pip-audit has 1 for all that goes wrong, and 0 for
packages that it could not look up, so its report is read: without one the database could not be asked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

NONE_KNOWN, SOME_KNOWN, UNKNOWN = 0, 1, 3
OPTIONS = (
    "--vulnerability-service",
    "osv",
    "--no-deps",
    "--disable-pip",
    "--format",
    "json",
    "--progress-spinner",
    "off",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="requirements, every one pinned")
    parser.add_argument("--if-reachable", action="store_true", help="exit code 0 where the database cannot be asked")
    parser.add_argument("--pip-audit", default=f"{Path(sys.executable).parent}/pip-audit", metavar="PROGRAM")
    arguments = parser.parse_args()
    codes = {audit(file, arguments.pip_audit) for file in arguments.files}
    if SOME_KNOWN in codes:
        return SOME_KNOWN
    if UNKNOWN in codes:
        return NONE_KNOWN if arguments.if_reachable else UNKNOWN
    return NONE_KNOWN


def audit(file: Path, program: str) -> int:
    """What is known of one file's packages, printed."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = (program, "--requirement", str(file), *OPTIONS, "--output", str(report))
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.exists():
            complaint = run.stderr.strip().splitlines()[-1:] or [f"exit code {run.returncode}"]
            print(
                f"{file}: NOT AUDITED, pip-audit has no report, as where it cannot reach the database: {complaint[0]}"
            )
            return UNKNOWN
        packages = json.loads(report.read_text())["dependencies"]
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", ())]
    for package, flaw in found:
        fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
        print(f"{file}: {package['name']} {package['version']}: {flaw['id']}, fixed in {fixed}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        print(f"{file}: NOT AUDITED: {', '.join(skipped)}")
    if not found and not skipped:
        print(f"{file}: nothing is known against its {len(packages)} packages")
    return SOME_KNOWN if found else UNKNOWN if skipped else NONE_KNOWN


if __name__ == "__main__":
    sys.exit(main())

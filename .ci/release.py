"""Check that all places have the same version: `python .ci/release.py --tag v0.2.0`.

Exit codes: 0 they agree, 1 they do not; a line says where.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "CITATION.cff": r"^version: (\S+)$",
    "deploy/helm/tympan/Chart.yaml": r"^(?:version|appVersion): (\S+)$",
    "deploy/docker/Dockerfile": r"^ARG VERSION=(\S+)$",
    "deploy/docker/Dockerfile.cuda": r"^ARG VERSION=(\S+)$",
}


def problems(root: Path, tag: str | None) -> list[str]:
    """Return a sentence for each place that has another version than pyproject.toml, or none."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    found = []
    for name, pattern in PLACES.items():
        versions = re.findall(pattern, (root / name).read_text(), re.MULTILINE)
        if set(versions) != {version}:
            found.append(f"{name} has {', '.join(versions) or 'no version'}, pyproject.toml {version}")
    if tag is not None:
        if tag != f"v{version}":
            found.append(f"the tag is {tag}, pyproject.toml has {version}")
        if not re.search(
            rf"^## \[{re.escape(version)}\] - \d{{4}}-", (root / "CHANGELOG.md").read_text(), re.MULTILINE
        ):
            found.append(f"CHANGELOG.md has no section of {version} with a date")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", help="tag of the release, which also needs a section in CHANGELOG.md")
    found = problems(ROOT, parser.parse_args().tag)
    print("\n".join(found) or "all versions agree")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

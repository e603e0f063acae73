"""The versions in `docs/clients.md` are those that `make test-clients` installs."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "clients.md").read_text()


def listed(heading: str) -> dict[str, str]:
    """Return the versions in the table below a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (\d[\w.]*) \|", section, re.MULTILINE))


def test_versions_of_packages_for_python() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints-clients.txt").read_text().splitlines()[1:])
    versions = listed("Packages for Python")
    assert len(versions) >= 10
    assert versions == {name: pinned[name] for name in versions}


def test_versions_of_packages_for_node() -> None:
    pinned = json.loads((ROOT / "tests" / "clients" / "node" / "package.json").read_text())["dependencies"]
    peers = {"@livekit/agents", "@livekit/rtc-node"}  # of the plugin
    assert listed("Packages for Node") == {name: version for name, version in pinned.items() if name not in peers}

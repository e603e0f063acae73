"""What axe-core finds on a page; the package is in `tests/browser/node`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

AXE = Path(__file__).parents[1] / "browser" / "node" / "node_modules" / "axe-core" / "axe.min.js"


def violations(page: Page) -> list[dict[str, Any]]:
    """Return what axe-core finds on the page as it is."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [{"rule": each["id"], "nodes": [node["html"] for node in each["nodes"]]} for each in found]

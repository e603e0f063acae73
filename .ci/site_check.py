"""Check the documentation site: `python .ci/site_check.py site`. No page may load anything from another server.

Exit codes: 0 none does, 1 one does, or the site has no pages; a line names each page and address.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
FROM_ELSEWHERE = re.compile(r"(https?:)?//")
NOT_LOADED = {"canonical", "next", "prev", "alternate", "edit"}
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?((?:https?:)?//[^)'\"]+)|@import\s+['\"]((?:https?:)?//[^'\"]+)")


class Loads(HTMLParser):
    """Collects the addresses that a page loads from other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        address = values.get(LOADED.get(tag, "")) or ""
        is_link = tag == "link" and set((values.get("rel") or "").split()) & NOT_LOADED
        if FROM_ELSEWHERE.match(address) and not is_link:
            self.found.append(address)


def external(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and address that it loads from elsewhere."""
    for page in sorted(site.rglob("*.html")):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        yield from ((page, address) for address in loads.found)
    for sheet in sorted(site.rglob("*.css")):
        for first, second in CSS_ADDRESS.findall(sheet.read_text(encoding="utf-8")):
            yield sheet, first or second


def main(folder: str) -> int:
    """Print what is loaded from elsewhere, and return the exit code."""
    site = Path(folder)
    found = list(external(site))
    for file, address in found:
        print(f"{file.relative_to(site)} loads {address}")
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{pages} pages, {len(found)} addresses of other servers")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Hooks of the documentation site: links out of `docs/`, which lead to files of the repository, become plain text."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

LINK = re.compile(r"\[([^\]\n]+)\]\(((?:\.\./)+[^)\s]*)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page without links that leave the folder of the documentation."""
    docs = Path(config.docs_dir)
    folder = docs / PurePosixPath(page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        target = (folder / match[2].partition("#")[0]).resolve()
        return match[0] if target.is_relative_to(docs.resolve()) else match[1]

    return LINK.sub(replaced, markdown)

"""The documentation site: every page is in it, it loads nothing from elsewhere, and links out of it are plain text."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CHECK = runpy.run_path(str(ROOT / ".ci" / "site_check.py"))
HOOKS = runpy.run_path(str(ROOT / ".ci" / "site_hooks.py"))


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_public_name_of_the_api_page_exists() -> None:
    for name in re.findall(r"^::: (\S+)$", (DOCS / "reference" / "python.md").read_text(), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        if attribute in ("messages", "errors"):
            continue
        assert re.search(
            rf"^(def|class) {attribute}\b", (ROOT / "src" / f"{module.replace('.', '/')}.py").read_text(), re.M
        )


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<script src="app.js"></script><a href="https://example.com">a link</a>', []),
        ('<link rel="canonical" href="https://example.com/">', []),
        ('<script src="https://cdn.example/app.js"></script>', ["https://cdn.example/app.js"]),
        ('<link rel="stylesheet" href="//fonts.example/a.css"><img src="a.png">', ["//fonts.example/a.css"]),
        ("<style>body { color: red }</style>", []),
    ],
)
def test_pages_load_nothing_from_elsewhere(page: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(page)
    assert [address for _, address in CHECK["external"](tmp_path)] == expected
    assert CHECK["main"](str(tmp_path)) == bool(expected)


def test_style_sheets_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text(
        '@import "https://a.example/x.css"; b { src: url(local.woff) url("//b.example/y") }'
    )
    assert [address for _, address in CHECK["external"](tmp_path)] == ["https://a.example/x.css", "//b.example/y"]
    assert CHECK["main"](str(tmp_path)) == 1


def test_links_out_of_the_documentation_become_text() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="deploy/kubernetes.md"))
    text = "The [chart](../../deploy/helm/tympan), [figures](../benchmarks.md#a), [site](https://example.com)."
    shown = HOOKS["on_page_markdown"](text, page=page, config=SimpleNamespace(docs_dir=str(DOCS)), files=None)
    assert shown == "The chart, [figures](../benchmarks.md#a), [site](https://example.com)."
